# Averaged weights (EMA), from the end of the mask annealing on: beside any config,
#
#   _base_ = ['./eomt_vitl_ade20k.py', '../_base_/eomt_ema.py']
#   default_hooks = dict(ema={{_base_.ema}})
#
# or without a file: --cfg-options default_hooks.ema.type=eomt_mm.EMAHook
#
# The score at 5/6 of the run and later is that of the average; before, the average is
# the model itself, masked as it is trained.
ema = dict(type='eomt_mm.EMAHook')
