"""The peak memory of a process, for programs that tests run; of Linux."""

# unlike ru_maxrss, this does not count the process that started this one
PEAK = r"""
import re
from pathlib import Path
peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
"""
