from .run import iter_upscale_on_cluster as iter_upscale_on_cluster
from .task_dispatcher import connect as connect
from .task_dispatcher import local_workers as local_workers
from .task_dispatcher import need_distributed as need_distributed
