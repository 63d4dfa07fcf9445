from .client import connect as connect
from .client import local_workers as local_workers
from .client import need_distributed as need_distributed
from .run import iter_upscale_on_cluster as iter_upscale_on_cluster
