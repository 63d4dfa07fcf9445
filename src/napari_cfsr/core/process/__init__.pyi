from .remote_model import RemoteModel as RemoteModel
from .remote_training import RemoteTraining as RemoteTraining
