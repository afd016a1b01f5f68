# fine-tune GPT-2 on Shakespeare
# $ python data/shakespeare/prepare.py
# $ python train.py config/finetune_shakespeare.py

out_dir = 'out-shakespeare'
eval_interval = 5
eval_iters = 40
wandb_project = 'shakespeare'
wandb_run_name = 'ft-gpt2-xl'

dataset = 'shakespeare'
init_from = 'gpt2-xl'  # the largest one; --init_from=gpt2 fits a small machine

always_save_checkpoint = False  # only where the validation loss improves

# 1 batch_size * 32 micro-batches * 1024 tokens = 32,768 tokens per step
# shakespeare has 301,967 training tokens, so an epoch is about 9.2 steps
batch_size = 1
gradient_accumulation_steps = 32
max_iters = 20

# at a constant learning rate
learning_rate = 3e-5
lr_schedule = 'constant'
warmup_iters = 0
