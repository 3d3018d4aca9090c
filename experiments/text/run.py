"""What does a review feel like? What do 800 training texts give a network without pretrained weights?

    python experiments/text/run.py IMDB --out experiments/text/text.csv

`IMDB` is a folder with `texts.csv` (`label`, `text`). Contenders:

- `most frequent`: the label that is more frequent in training;
- `TF-IDF, words` and `TF-IDF, words and pairs`: scikit-learn's TF-IDF with logistic regression, its C chosen by
  cross-validation on the training texts;
- `LSTM from scratch`: fastai's AWD-LSTM in a small size with its classifier, all layers at once;
- `language model first`: the encoder has been trained as a language model on the training texts before;
- `language model first, gradual`: the same, unfrozen from the top down with discriminative learning rates.

The seed decides the split (a fifth for validation), new weights and order of the texts, so an interval over seeds
includes the choice of the texts. Criterion, fixed beforehand: accuracy on the validation texts after the last
epoch. `NAME_lm.csv` has the language model's perplexity by epoch, beside that of a unigram model. No text is
written. An interrupted run goes on."""
import argparse, sys, time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np, pandas as pd, torch
from fastai.text.all import (AWD_LSTM, CategoryBlock, ColReader, DataBlock, RandomSplitter, TextBlock, accuracy,
    awd_lstm_clas_config, awd_lstm_lm_config, language_model_learner, make_vocab, noop, text_classifier_learner,
    tokenize_df)
from fastai.torch_core import set_seed
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline

from common import add_rows, arguments, differences, is_done, rows_of, spread
from segnb.lr_finder import lr_find
from segnb.one_cycle import fit_one_cycle

SIZE = dict(emb_sz=48, n_hid=96, n_layers=2)
torch.set_num_threads(1)


def tfidf(texts, labels, pairs):
    "Linear model of weighted word counts, with the regularisation that cross-validation prefers"
    counts = TfidfVectorizer(ngram_range=(1, 1+pairs), min_df=2, sublinear_tf=True)
    model = make_pipeline(counts, LogisticRegressionCV(Cs=[.3, 1, 3, 10, 30, 100], cv=5, max_iter=1000))
    return model.fit(texts, labels)


class Texts:
    "The texts of a folder, in tokens"
    def __init__(self, folder, most):
        self.df = pd.read_csv(folder/'texts.csv')
        tokens, _ = tokenize_df(self.df, 'text', n_workers=0)
        self.tokens = tokens.assign(text=[t[:most] for t in tokens.text])

    def split(self, seed): return RandomSplitter(.2, seed=seed)(self.df)

    def vocab(self, seed):
        "Tokens that occur three times or more in training, at most 5000"
        from collections import Counter
        train, _ = self.split(seed)
        return make_vocab(Counter(t for i in train for t in self.tokens.text.iloc[i]), 3, 5000)

    def dls(self, seed, vocab, is_lm, bs):
        blocks = [TextBlock(noop, vocab=vocab, is_lm=is_lm, seq_len=48)] + [CategoryBlock]*(not is_lm)
        block = DataBlock(blocks=blocks, get_x=ColReader('text'), splitter=RandomSplitter(.2, seed=seed),
                          get_y=None if is_lm else ColReader('label'))
        return block.dataloaders(self.tokens, bs=bs, num_workers=0, device='cpu', seq_len=48)


def quietly(learn, f):
    "CPU seconds"
    start = time.process_time()
    with learn.no_bar(), learn.no_logging(): f()
    return time.process_time()-start


def language_model(texts, seed, vocab, epochs, out):
    "Weights of an encoder that has learned to guess the next token, and its CPU seconds"
    dls = texts.dls(seed, vocab, True, 32)
    set_seed(seed)
    learn = language_model_learner(dls, AWD_LSTM, config={**awd_lstm_lm_config, **SIZE}, drop_mult=.3,
                                   pretrained=False)
    with learn.no_bar(): found = lr_find(learn).lr if seed == 1 else None
    seconds = quietly(learn, lambda: fit_one_cycle(learn, epochs, 1e-2))
    tokens = torch.cat([x.flatten() for x,_ in dls.train])
    p = (torch.bincount(tokens, minlength=len(vocab))+1.)/(len(tokens)+len(vocab))
    alone = -torch.cat([p[y.flatten()].log() for _,y in dls.valid]).mean()
    rows = [dict(seed=seed, epoch=0, model='unigram', loss=float(alone))]
    rows += [dict(seed=seed, epoch=i+1, model='AWD-LSTM', loss=float(v[1]), train_loss=float(v[0]), found=found)
             for i,v in enumerate(learn.recorder.values)]
    if not is_done(out, seed=seed): add_rows(rows, out)
    return learn.model[0].state_dict(), seconds


def classifier(texts, seed, vocab, weights=None):
    dls = texts.dls(seed, vocab, False, 32)
    set_seed(seed)
    learn = text_classifier_learner(dls, AWD_LSTM, config={**awd_lstm_clas_config, **SIZE}, drop_mult=.5,
                                    pretrained=False, metrics=accuracy, seq_len=48)
    if weights: learn.model[0].module.load_state_dict(weights)
    return learn


def at_once(learn, epochs):
    learn.unfreeze()
    fit_one_cycle(learn, epochs, 5e-3)


def gradual(learn, epochs):
    "The head, then one layer more each time, with a lower learning rate for each layer below"
    for n, lr, part in ((1, 1e-2, 1), (2, 5e-3, 1), (3, 3e-3, 1)):
        learn.freeze_to(-n)
        fit_one_cycle(learn, part, slice(lr/2.6**n, lr))
    learn.unfreeze()
    fit_one_cycle(learn, max(1, epochs-3), slice(2e-3/2.6**4, 2e-3))


def measure(folder, out, seeds, epochs, lm_epochs, most):
    texts = Texts(folder, most)
    for seed in seeds:
        def todo(model): return not is_done(out, model=model, seed=seed)
        def add(model, right, seconds, lr=0.):
            row = dict(data=folder.name, model=model, opt='adam' if lr else '', lr=lr, seed=seed,
                       accuracy=float(np.mean(right)), texts=len(right), seconds=seconds)
            add_rows([row], out)
            print(f"{model}, seed {seed}: accuracy {row['accuracy']:.3f}, {seconds:.0f} s", flush=True)
        train, valid = texts.split(seed)
        text, label = texts.df.text.to_numpy(), texts.df.label.to_numpy()
        if todo('most frequent'): add('most frequent', label[valid] == pd.Series(label[train]).mode()[0], 0.)
        for name, pairs in (('TF-IDF, words', 0), ('TF-IDF, words and pairs', 1)):
            if not todo(name): continue
            start = time.process_time()
            model = tfidf(text[train], label[train], pairs)
            add(name, model.predict(text[valid]) == label[valid], time.process_time()-start)
        if not todo('language model first, gradual'): continue
        vocab = texts.vocab(seed)
        weights, before = language_model(texts, seed, vocab, lm_epochs, out.with_name(f'{out.stem}_lm.csv'))
        runs = {'LSTM from scratch': (None, at_once, 5e-3), 'language model first': (weights, at_once, 5e-3),
                'language model first, gradual': (weights, gradual, 1e-2)}
        for name, (start, fit, lr) in runs.items():
            if not todo(name): continue
            learn = classifier(texts, seed, vocab, start)
            seconds = quietly(learn, lambda: fit(learn, epochs))
            with learn.no_bar(), learn.no_logging(): p, y = learn.get_preds()
            add(name, (p.argmax(1) == y).numpy(), seconds+(before if start else 0.), lr)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path)
    p.add_argument('--seeds', type=int, nargs='+', default=[1,2,3])
    p.add_argument('--epochs', type=int, default=8, help="the classifier's")
    p.add_argument('--lm-epochs', type=int, default=6)
    p.add_argument('--most', type=int, default=200, help='tokens of a text that are read')
    p.add_argument('--out', type=Path, required=True, help='a CSV file, to which runs are added')
    args = arguments(p)
    measure(args.folder, args.out, args.seeds, args.epochs, args.lm_epochs, args.most)
    df = rows_of(args.out)
    print(spread(df, 'model', 'accuracy').round(3), spread(df, 'model', 'seconds').round(0), sep='\n')
    print(differences(df, 'model', 'TF-IDF, words', ['accuracy']).round(4).to_string(index=False))
