"""Everything a notebook wants: `from segnb.all import *`"""
from segnb.streets import *
from segnb.dataset import *
from segnb.augment import *
from segnb.dataloader import *
from segnb.unet import *
from segnb.speed import *
from segnb.loss import *
from segnb.metrics import *
from segnb.learner import *
from segnb.checkpoint import *
from segnb.lr_finder import *
from segnb.one_cycle import *
from segnb.tta import *
from segnb.interpret import *
from segnb.widgets import *
from segnb.looking import *
from segnb.check import *
from segnb.export import *
from segnb.track import Tracker, compare, curves, git_state, go_back, return_to, runs, usage, write_note
from segnb.sweep import explore_sweep, open_sweep, plot_sweep, read_sweep, run_sweep, sweep_runs, sweep_status, trainer
