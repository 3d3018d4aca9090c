"""What a notebook of the course wants: `from segnb.all import *`. All else is imported from its module."""
from pathlib import Path

import matplotlib.pyplot as plt, numpy as np, pandas as pd, torch
from fastai.data.transforms import get_image_files

from segnb.draw import class_colors, colorize, error_image, overlay, plot_batch, plot_results
from segnb.dataset import (Codes, SegDataset, find_pairs, ListSplitter, ClipSplitter, FoldSplitter,
                           camvid_codes, pixel_counts)
from segnb.streets import streets
from segnb.augment import SegAugment
from segnb.dataloader import SegDataLoader, SegDataLoaders
from segnb.unet import UNet, EncoderUNet
from segnb.loss import SegLoss, class_weights
from segnb.metrics import ConfusionMatrix, seg_metrics
from segnb.model_file import SegModel, load_model
from segnb import volumes as _volumes                    # `SegModel.predict_volume`
from segnb.learner import SegLearner, seg_learner
from segnb.checkpoint import Checkpoint
from segnb.lr_finder import LRCurve, lr_find
from segnb.one_cycle import fit_one_cycle, plot_losses, plot_sched
from segnb.tta import TTA, Ensemble, Tiled
from segnb.interpret import class_coverage, plot_coverage, results
from segnb import threshold as _threshold                # `learn.pr_curves`, `learn.fit_threshold`
from segnb.calibrate import disagreement, entropy, plot_reliability, reliability, risk_coverage
from segnb.browsers import browse, explore_coverage, explore_schedule
from segnb import views as _views                        # `curve.inspect`
from segnb.monitor import Monitor
from segnb.check import check_data
from segnb.export import export_onnx
from segnb.track import Tracker, runs, track

__all__ = [n for n in dir() if not n.startswith('_') and n != 'segnb']
