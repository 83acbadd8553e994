# The runtime of MMDetection's tasks: the same with MMDet's own types.
_base_ = './default_runtime.py'
default_scope = 'mmdet'
visualizer = dict(type='eomt_mm.DetVisualizer')
default_hooks = dict(visualization=dict(type='DetVisualizationHook'))
tta_model = dict(type='eomt_mm.EoMTDetTTAModel')
