# OpenAI's gpt2-large on the data of --dataset, 36 layers, 20 heads, 1280 wide: 774M parameters
# $ python train.py config/eval_gpt2_large.py

init_from = 'gpt2-large'
eval_only = True
batch_size = 8
eval_iters = 4000  # many windows, for a good estimate
