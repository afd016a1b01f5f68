# OpenAI's gpt2-medium on the data of --dataset, 24 layers, 16 heads, 1024 wide: 350M parameters
# $ python train.py config/eval_gpt2_medium.py

init_from = 'gpt2-medium'
eval_only = True
batch_size = 8
eval_iters = 4000  # many windows, for a good estimate
