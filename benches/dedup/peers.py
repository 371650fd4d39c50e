"""One peer after the other: usage: peers.py NAME IN.jsonl KEPT_IDS

Each reads JSON Lines with "id" and "text" and writes the ids that it keeps, one a line. Word 5-grams, 14 bands of 8 rows
where a tool lets one choose. Every tool is imported only when it is asked for.
"""

import json
import os
import re
import sys
import tempfile


def records(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def write(path, ids):
    with open(path, "w", encoding="utf-8") as out:
        out.writelines(f"{i}\n" for i in ids)


def shingles(text):
    words = re.findall(r"\w+", text.lower())
    return [" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))]


def datatrove(path, kept, spacy):
    """Four steps, one task each but for the fourteen buckets."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature,
    )
    from datatrove.utils.word_tokenizers import WordTokenizer

    class WhiteSpace(WordTokenizer):
        def word_tokenize(self, text):
            return text.split()

        def sent_tokenize(self, text):
            raise NotImplementedError

        def span_tokenize(self, text):
            raise NotImplementedError

    with tempfile.TemporaryDirectory() as folder:
        sub = lambda name: os.path.join(folder, name)
        documents = lambda: (Document(text=r["text"], id=r["id"]) for r in records(path))
        MinhashDedupSignature(sub("sigs"), language="en" if spacy else WhiteSpace()).run(documents(), 0, 1)
        for rank in range(14):
            MinhashDedupBuckets(sub("sigs"), sub("dups")).run(None, rank, 14)
        MinhashDedupCluster(sub("dups"), sub("remove")).run(None, 0, 1)
        write(kept, (d.id for d in MinhashDedupFilter(sub("remove")).run(documents(), 0, 1)))


def text_dedup(path, kept):
    """`text_dedup.minhash` with 14 x 8; it keeps whole records, to a folder of Arrow files."""
    import subprocess

    from datasets import load_from_disk

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "text_dedup.minhash", "--path", "json", "--data_files", path, "--split", "train",
                   "--column", "text", "--cache_dir", folder + "/c", "--output", folder + "/o", "--num_proc", "1",
                   "--hash_func", "xxh3", "--num_perm", "112", "--b", "14", "--r", "8", "--ngram", "5"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        write(kept, load_from_disk(folder + "/o")["id"])


def rensa(path, kept):
    """Its own signatures and LSH; a document with a match is dropped, unverified, which is what its example does."""
    from rensa import RMinHash, RMinHashLSH

    lsh, ids = RMinHashLSH(threshold=0.7, num_perm=112, num_bands=14), []
    for number, record in enumerate(records(path)):
        minhash = RMinHash(num_perm=112, seed=1)
        minhash.update(shingles(record["text"]))
        if not lsh.query(minhash):
            lsh.insert(number, minhash)
            ids.append(record["id"])
    write(kept, ids)


def gaoya(path, kept):
    """Its index of words by 5-grams, streaming, keep-first; matches are checked on the signatures, at 0.7."""
    from gaoya.minhash import MinHashStringIndex

    index = MinHashStringIndex(hash_size=32, jaccard_threshold=0.7, num_bands=14, band_size=8, num_hashes=112,
                               analyzer="word", lowercase=True, ngram_range=(5, 5))
    ids = []
    for number, record in enumerate(records(path)):
        if not index.query(record["text"]):
            index.insert_document(number, record["text"])
            ids.append(record["id"])
    write(kept, ids)


def data_juicer(path, kept):
    """Its operator on Hugging Face datasets, 14 x 8 of 112 permutations; clusters by union-find, unverified."""
    from data_juicer.core.data import NestedDataset
    from data_juicer.ops.deduplicator.document_minhash_deduplicator import DocumentMinhashDeduplicator
    from datasets import Dataset

    operator = DocumentMinhashDeduplicator(tokenization="space", window_size=5, lowercase=True, jaccard_threshold=0.7,
                                           num_permutations=112, num_bands=14, num_rows_per_band=8, num_proc=1)
    dataset = NestedDataset(Dataset.from_list([{"id": r["id"], "text": r["text"]} for r in records(path)]))
    dataset = dataset.map(operator.compute_hash, num_proc=1)
    dataset, _ = operator.process(dataset)
    write(kept, dataset["id"])


PEERS = {
    "datatrove, spaCy": lambda a, b: datatrove(a, b, True),
    "datatrove, white space": lambda a, b: datatrove(a, b, False),
    "text-dedup": text_dedup,
    "rensa": rensa,
    "gaoya": gaoya,
    "data-juicer": data_juicer,
}

if __name__ == "__main__":
    PEERS[sys.argv[1]](sys.argv[2], sys.argv[3])
