"""The networks that segnb's is compared with: SMP's U-Net and the network of fastai's `unet_learner`"""
import warnings

import torch.nn as nn
from segnb.unet import EncoderUNet, pad_to


def smp():
    "The package segmentation_models_pytorch"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            import segmentation_models_pytorch
    except ImportError as e:
        raise ImportError("segmentation_models_pytorch is needed: pip install 'segnb[bench]'") from e
    return segmentation_models_pytorch


class SMPUnet(nn.Module):
    "SMP's `Unet` on a timm encoder, for images in 0..1 of any size, with the ImageNet weights of ours"
    def __init__(self, n_out, name='tf_efficientnet_lite0', pretrained=True):
        super().__init__()
        ours = EncoderUNet(n_out, name, pretrained=pretrained)
        unet = smp().Unet(f'tu-{name}', encoder_weights=None, classes=n_out)
        if pretrained: unet.encoder.model.load_state_dict(ours.encoder.state_dict())
        self.normalize, self.stride = ours.normalize, ours.stride
        self.encoder, self.decoder, self.head = unet.encoder, unet.decoder, unet.segmentation_head

    def forward(self, x):
        h, w = x.shape[-2:]
        x = pad_to(self.normalize(x), self.stride)
        return self.head(self.decoder(self.encoder(x)))[..., :h, :w]


def fastai_unet(n_out, size):
    "The network of fastai's `unet_learner` with a resnet34"
    from fastai.vision.learner import create_unet_model
    from fastai.vision.models import resnet34
    return create_unet_model(resnet34, n_out, size, pretrained=False)
