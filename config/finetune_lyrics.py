# fine-tune GPT-2 (124M) on rap lyrics
# $ python data/lyrics/prepare.py
# $ python train.py config/finetune_lyrics.py

out_dir = 'out-lyrics'
init_from = 'gpt2'
eval_interval = 100
eval_iters = None  # all held-out songs
log_interval = 10
always_save_checkpoint = False  # only where the validation loss improves
wandb_project = 'lyrics'
wandb_run_name = 'gpt2'

dataset = 'lyrics'
batches = 'documents'  # rows begin where songs begin; none has two songs
# 4 batch_size * 8 micro-batches = 32 songs, or parts of songs beyond block_size, per step
batch_size = 4
gradient_accumulation_steps = 8
block_size = 1024

# from the search on SmolLM2 in docs/experiments.md
freeze_embd = True
dropout = 0.1  # what GPT-2 was trained with
learning_rate = 1e-4
min_lr = 1e-5  # learning_rate / 10
warmup_iters = 20
max_iters = 1000
lr_decay_iters = 1000  # = max_iters
