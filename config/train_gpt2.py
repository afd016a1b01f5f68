# GPT-2 (124M) on OpenWebText, down to a loss of about 2.85 on one node of 8 A100 40GB in about 4 days
# (nanoGPT's recipe and its figures; untried here):
# $ torchrun --standalone --nproc_per_node=8 train.py config/train_gpt2.py

out_dir = 'out-gpt2'
wandb_log = True
wandb_project = 'owt'
wandb_run_name = 'gpt2-124M'

# a step has about half a million tokens:
# 12 batch_size * 1024 block_size * 5 micro-batches * 8 GPUs = 491,520
batch_size = 12
block_size = 1024
gradient_accumulation_steps = 5 * 8

# 600,000 steps * 491,520 tokens = 295 billion tokens
max_iters = 600000
lr_decay_iters = 600000

eval_interval = 1000
eval_iters = 2400
log_interval = 10

weight_decay = 1e-1
