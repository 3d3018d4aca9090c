"""Diagrams of the quick start."""
from drawing import BLUE, GREEN, PALE, RED, Drawing, root


def road_map():
    d = Drawing(900, 454)
    rows = [("Data", BLUE, [("01", "dataset", "masks and fair splits"), ("05", "augment", "moving image and mask"),
                            ("06", "dataloader", "from files to batches")]),
            ("Network and loss", GREEN, [("02", "U-Net", "encoder, decoder, skips"), ("03", "loss", "what training minimises"),
                                         ("04", "metrics", "what you report")]),
            ("Training", RED, [("07", "learner", "everything together"), ("08", "LR finder", "how large a step?"),
                               ("09", "one cycle", "large, then small steps")]),
            ("Looking and trusting", "#b07aa1", [("10", "TTA", "views, models, tiles"), ("11", "interpret", "where is it wrong?"),
                                                ("12", "calibrate", "how sure may it be?"), ("13", "views", "look at it live"),
                                                ("14", "volume", "scans, slice by slice"), ("15", "feedback", "learn from corrections")])]
    for k, (title, color, chapters) in enumerate(rows):
        x = 12+222*k
        d.box(x, 14, 206, 424, fill="white", stroke=color, r=8)
        d.text(x+103, 36, title, 15, color, bold=True)
        for j, (n, name, about) in enumerate(chapters):
            y = 60+62*j
            d.box(x+10, y, 186, 48, fill=PALE, stroke=color)
            d.text(x+28, y+16, n, 13, color, bold=True)
            d.text(x+44, y+16, name, 14, anchor="start")
            d.text(x+44, y+35, about, 10.5, "#555", anchor="start")
        if k: d.line((x-15, 226), (x-2, 226))
    d.save("road_map")


def tasks():
    "One frame, four questions about it: classification, detection, instance and semantic segmentation"
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt, numpy as np
    from scipy import ndimage
    from segnb.all import class_colors, find_pairs, streets
    ds = find_pairs(streets())[0]
    i = max(range(0, len(ds), 6), key=lambda k: things(ds, k))
    im, mask = np.asarray(ds.image(i)), ds.mask(i)
    names = [n for n in ("Car", "Pedestrian", "Bicyclist") if (mask == ds.classes.index(n)).sum() > 80]
    fig, axs = plt.subplots(1, 4, figsize=(12, 2.75))
    for ax, title in zip(axs, ("classification", "object detection", "instance segmentation", "semantic segmentation")):
        ax.imshow(im); ax.set_title(title, fontsize=11); ax.axis("off")
    axs[0].text(.5, -.1, "car: yes   bus: no", ha="center", fontsize=10, transform=axs[0].transAxes)
    one = np.zeros((*mask.shape, 4))
    colors = plt.cm.Set1.colors
    k = 0
    for name in names:
        label, n = ndimage.label(mask == ds.classes.index(name))
        for m, (ys, xs) in enumerate(ndimage.find_objects(label), 1):
            if (label == m).sum() < 80: continue
            for ax in axs[1:3]:
                if ax is axs[1]:
                    ax.add_patch(plt.Rectangle((xs.start, ys.start), xs.stop-xs.start, ys.stop-ys.start, fill=False, ec=colors[k % 9], lw=1.8))
            one[label == m] = (*colors[k % 9], .75)
            k += 1
    axs[1].text(.5, -.1, "a box and a class for each object", ha="center", fontsize=10, transform=axs[1].transAxes)
    axs[2].imshow(one)
    axs[2].text(.5, -.1, "the pixels of each object", ha="center", fontsize=10, transform=axs[2].transAxes)
    axs[3].imshow(class_colors(len(ds.classes))[mask], alpha=.8)
    axs[3].text(.5, -.1, "a class for each pixel", ha="center", fontsize=10, transform=axs[3].transAxes)
    fig.tight_layout()
    fig.savefig(root/"nbs/images/tasks.jpg", dpi=95, pil_kwargs={"quality": 88})


def things(ds, i):
    "How many objects of three classes a frame has; -1 where two cars touch, as one object is much wider than high"
    import numpy as np
    from scipy import ndimage
    mask, n = ds.mask(i), 0
    for name in ("Car", "Pedestrian", "Bicyclist"):
        label, k = ndimage.label(mask == ds.classes.index(name))
        n += min(3, sum(np.bincount(label.ravel())[1:] > 80))
        for ys, xs in ndimage.find_objects(label):
            if xs.stop-xs.start > 1.5*(ys.stop-ys.start) and xs.stop-xs.start > 20: return -1
    return n
