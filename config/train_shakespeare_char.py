# train a miniature character-level Shakespeare model
# good for debugging and playing on small machines
# $ python data/shakespeare_char/prepare.py
# $ python train.py config/train_shakespeare_char.py

out_dir = 'out-shakespeare-char'
eval_interval = 250  # keep frequent because we'll overfit
eval_iters = None  # all of the held-out text
log_interval = 10  # don't print too often
always_save_checkpoint = False  # we expect to overfit on this small dataset, so only save when val improves

wandb_project = 'shakespeare-char'
wandb_run_name = 'mini-gpt'

dataset = 'shakespeare_char'
gradient_accumulation_steps = 1
batch_size = 64
block_size = 256  # context of up to 256 previous characters

# baby GPT model :)
n_layer = 6
n_head = 6
n_embd = 384
dropout = 0.2

learning_rate = 1e-3  # with baby networks can afford to go a bit higher
max_iters = 5000
lr_decay_iters = 5000  # = max_iters
min_lr = 1e-4  # learning_rate / 10
beta2 = 0.99  # a bit bigger because the number of tokens per step is small
warmup_iters = 100
