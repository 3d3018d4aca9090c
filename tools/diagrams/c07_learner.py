"""Diagrams of the chapter on the learner."""
from drawing import BLUE, GREEN, GREY, PALE, RED, Drawing


def training_loop():
    "What a Learner does in an epoch, and where callbacks are called"
    d = Drawing(900, 270)
    d.box(14, 30, 872, 226, fill="white", stroke=GREY, r=8)
    d.text(30, 48, "for each epoch", 13, "#555", anchor="start", bold=True)
    d.box(30, 66, 580, 172, fill="white", stroke=BLUE, r=8)
    d.text(46, 84, "for each training batch", 13, BLUE, anchor="start", bold=True)
    steps = [("forward pass", "pred = model(x)"), ("loss", "loss_func(pred, y)"), ("backward pass", "loss.backward()"),
             ("step", "opt.step()"), ("zero", "opt.zero_grad()")]
    for k, (name, code) in enumerate(steps):
        x = 44+112*k
        d.box(x, 106, 102, 50, fill=PALE, stroke=BLUE)
        d.text(x+51, 122, name, 11.5, bold=True)
        d.text(x+51, 142, code, 9.5, "#555")
        if k: d.line((x-9, 131), (x-1, 131))
    for x, event in ((44, "before_batch"), (151, "after_pred"), (263, "after_loss"), (375, "before_step"), (487, "after_step"), (596, "after_batch")):
        d.line((x, 190), (x, 162), color=RED)
        d.text(min(max(x, 72), 576), 202, event, 10.5, RED)
    d.text(320, 226, "callbacks are called at these events, and may read and change everything", 11.5, RED)
    d.box(630, 66, 240, 172, fill="white", stroke=GREEN, r=8)
    d.text(646, 84, "for each validation batch", 13, GREEN, anchor="start", bold=True)
    for k, (name, code) in enumerate([("forward pass", "no gradients"), ("metrics", "add counts")]):
        d.box(646+112*k, 106, 102, 50, fill="#eaf4e6", stroke=GREEN)
        d.text(697+112*k, 122, name, 12.5, bold=True)
        d.text(697+112*k, 142, code, 9.5, "#555")
    d.text(750, 190, "then a row of the table:\nlosses, metrics, time", 11.5, "#555")
    d.save("training_loop")
