"""What a fine-tuning run needs: memory by cause and phase, hours and dollars, before it is started.

`mangalab.estimate` holds the textbook arithmetic that the chapters derive; this package counts what
PyTorch really keeps (each saved tensor of a layer, the logits, the states) and takes the largest phase
of a step. `benchmarks/estimate_memory.py` holds it against measured runs. Importing it is instant.
"""

from .activations import layer_activations as layer_activations
from .compute import Bill as Bill
from .compute import bill as bill
from .memory import Memory as Memory
from .memory import kv_cache as kv_cache
from .memory import memory as memory
from .memory import trained_parameters as trained_parameters
from .plan import METHODS as METHODS
from .plan import OPTIMIZERS as OPTIMIZERS
from .plan import PRECISIONS as PRECISIONS
from .plan import Plan as Plan
from .plan import PlanError as PlanError
from .shapes import SHAPES as SHAPES
from .shapes import shape_of as shape_of
