# OpenAI's gpt2-xl on the data of --dataset, 48 layers, 25 heads, 1600 wide: 1558M parameters
# $ python train.py config/eval_gpt2_xl.py

init_from = 'gpt2-xl'
eval_only = True
batch_size = 8
eval_iters = 4000  # many windows, for a good estimate
