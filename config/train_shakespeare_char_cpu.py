# nanoGPT's character-level Shakespeare model for a CPU, to the same loss in a fraction of the time
# $ python data/shakespeare_char/prepare.py
# $ python train.py config/train_shakespeare_char_cpu.py

out_dir = 'out-shakespeare-char-cpu'
eval_iters = 120  # windows: what is printed; the table in docs/experiments.md is over the whole split
log_interval = 10

dataset = 'shakespeare_char'
gradient_accumulation_steps = 1
batch_size = 12
block_size = 64

# as in nanoGPT's recipe: 0.80M parameters
n_layer = 4
n_head = 4
n_embd = 128

pos = 'rotary'
rope_theta = 100.0  # angles for a context of 64
mlp = 'relu2'
smear = 3
logit_softcap = 10.0
tie_weights = False
init = 'zero'

optimizer = 'muon'
muon_lr = 0.03
muon_momentum = 0.8
muon_ns_steps = 3
learning_rate = 0.02
weight_decay = 0.0
beta1 = 0.8
max_iters = 132
eval_interval = 132  # = max_iters
lr_schedule = 'trapezoid'
warmup_iters = 0
lr_decay_iters = 132  # = max_iters
cooldown_iters = 66  # half of it
min_lr = 0.0
