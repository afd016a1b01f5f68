# OpenAI's gpt2 on the data of --dataset, 12 layers, 12 heads, 768 wide: 124M parameters
# $ python train.py config/eval_gpt2.py

init_from = 'gpt2'
eval_only = True
batch_size = 8
eval_iters = 4000  # many windows, for a good estimate
