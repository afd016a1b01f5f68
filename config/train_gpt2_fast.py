# config/train_gpt2.py's model, data and batch with what has paid off since GPT-2: rotary positions,
# normalised queries and keys, squared ReLU, embeddings that carry the one before, an untied head, blocks that
# begin as the identity, Muon, a trapezoid schedule. Untried at this size;
# config/train_shakespeare_char_cpu.py is much the same at 0.8M parameters; docs/experiments.md says what
# each part gave (normalised queries and keys nothing):
# $ torchrun --standalone --nproc_per_node=8 train.py config/train_gpt2_fast.py

out_dir = 'out-gpt2-fast'
wandb_log = True
wandb_project = 'owt'
wandb_run_name = 'gpt2-124M-fast'

# a step has about half a million tokens, as there:
# 12 batch_size * 1024 block_size * 5 micro-batches * 8 GPUs = 491,520
batch_size = 12
block_size = 1024
gradient_accumulation_steps = 5 * 8

# 124M parameters in the blocks and one embedding, 38.6M more in the head
pos = 'rotary'
qk_norm = True
mlp = 'relu2'
smear = 1
tie_weights = False
init = 'zero'

optimizer = 'muon'
muon_lr = 0.02  # that of Muon's author, https://github.com/KellerJordan/Muon
learning_rate = 3e-3
weight_decay = 0.0
# 20,000 steps * 491,520 tokens = 9.8 billion tokens
max_iters = 20000
lr_schedule = 'trapezoid'
warmup_iters = 250
lr_decay_iters = 20000  # = max_iters
cooldown_iters = 6000
min_lr = 0.0

eval_interval = 500
eval_iters = 2400
log_interval = 10
