"""Packs documents into fixed-length rows; NumPy and plain Python.

What is packed are *items*. In causal mode an item is a question: a document of ids `t1 .. tn` is
read as x = [BOS, t1, .., tn, EOS] and asks n + 1 of them, "predict x[i + 1] from x[0 .. i]"; a
*slot* of a row holds one question, an input token x[i] and its target x[i + 1]. In the framed
modes (masked language model, classification) an item is a token, and each part takes two more
slots, for the CLS before it and the SEP after it.

Documents are cut into *parts* of whole items, so each item is packed exactly once, whatever the
cuts. A part is a segment of its row, and attention does not leave the segment. A part that does
not begin its document may repeat the items before it as *context*: inputs without a loss. Example
in causal mode with sequence_length 6, documents [7, 8] and [9]:

    input    2 7 8 2 9 0        2 = BOS, 3 = EOS, 0 = padding
    target   7 8 3 9 3 0
    segment  1 1 1 2 2 0
    position 0 1 2 0 1 0

Three passes. Documents longer than a row are cut at the end of a paragraph, line, sentence or word
if there is one in the second half of the row such that what stays free is the size of a short
document that waits for a place; otherwise where the row is full. Best-fit decreasing puts the
parts into rows. Then the emptiest rows are taken apart again and their parts cut to fill the gaps
of the others.
"""

import heapq
from collections.abc import Iterator, Sequence

import numpy as np

from tokenmill.rows.arrays import Layout, Parts, Rows, spans

# No part is cut off that is shorter than this to fill a gap: a question needs some context.
_MIN_PART_ITEMS = 8


def best_fit(lengths: Sequence[int] | np.ndarray, capacity: int) -> list[list[int]]:
    """Put the longest item first into the fullest bin that still takes it (best-fit decreasing).

    Args:
        lengths: Lengths from 1 to `capacity`; equal ones are taken in the order given.
        capacity: Room of a bin.

    Returns:
        For each bin, the indices of its items. The bins in use with a given room are found by a
        bit set over rooms, so the cost is O(n) for a fixed capacity, not O(n x bins).
    """
    sizes = np.asarray(lengths, np.int64)
    order = np.argsort(-sizes, kind="stable")
    bins: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set if by_room[r] is not empty
    for index, length in zip(order.tolist(), sizes[order].tolist(), strict=True):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            target = by_room[room].pop()
            if not by_room[room]:
                rooms &= ~(1 << room)
        else:
            room, target = capacity, len(bins)
            bins.append([])
        bins[target].append(index)
        room -= length
        by_room[room].append(target)
        rooms |= 1 << room
    return bins


def pack_parts(
    item_counts: np.ndarray, layout: Layout, place_ranks: np.ndarray | None = None
) -> Parts:
    """Cut documents and pack the parts; a pure function of its arguments.

    Args:
        item_counts: Items of each document, int64; 0 takes no place.
        layout: Length of a row and how parts lie in it.
        place_ranks: For each token of all documents, how good a place to cut there is after it,
            0 for none (vocabulary.place_ranks). Without it, rows decide alone where to cut.
    """
    return _Packer(item_counts, layout, place_ranks).run()


_Part = tuple[int, int, int]  # document, start, length


class _Packer:
    def __init__(self, item_counts: np.ndarray, layout: Layout, ranks: np.ndarray | None):
        self._counts, self._layout, self._ranks = item_counts, layout, ranks
        self._token_counts = item_counts if layout.framed else np.maximum(item_counts - 1, 0)
        self._first_token = np.cumsum(self._token_counts) - self._token_counts
        self._min_items = max(1, min(_MIN_PART_ITEMS, layout.sequence_length // 8))

    def run(self) -> Parts:
        capacity, room = self._layout.sequence_length, self._layout.room(0)
        counts = self._counts
        short = np.flatnonzero((counts > 0) & (counts <= room))
        # Short parts that wait for a row, by size; 0: a full row needs none.
        waiting = np.bincount(counts[short] + self._layout.frame_slots, minlength=capacity + 1)
        waiting[0] = np.iinfo(np.int64).max
        parts: list[_Part] = [(d, 0, int(counts[d])) for d in short.tolist()]
        for too_long in np.flatnonzero(counts > room).tolist():
            parts.extend(self._cut(too_long, 0, int(counts[too_long]), waiting))
            waiting[self._size(parts[-1])] += 1
        sizes = [self._size(part) for part in parts]
        bins = best_fit(sizes, capacity)
        rooms = [capacity - sum(sizes[i] for i in items) for items in bins]
        rows = [[parts[i] for i in items] for items in bins]
        if not self._layout.fixed_cuts:
            rows = self._fill_gaps(rows, rooms)
        flat = np.array([p for row in rows for p in row], np.int64).reshape(-1, 3)
        document, start, length = flat.T
        numbers = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        context = np.minimum(start, self._layout.overlap)
        return Parts(document, start, length, context, numbers)

    def _size(self, part: _Part) -> int:
        """Return the slots that a part takes."""
        layout = self._layout
        return part[2] + layout.frame_slots + min(layout.overlap, part[1])

    def _cut(
        self, document: int, start: int, end: int, waiting: np.ndarray | None = None
    ) -> Iterator[_Part]:
        """Cut items start .. end - 1 of a document into parts that fit into a row."""
        while end - start > (room := self._layout.room(start)):
            length = room if waiting is None else self._good_length(document, start, room, waiting)
            yield document, start, length
            start += length
        yield document, start, end - start

    def _good_length(self, document: int, start: int, room: int, waiting: np.ndarray) -> int:
        """Choose a part's length, up to `room`, that ends at a good place and leaves no gap.

        The next part begins with the token after the place. In causal mode that token is the
        target of the last question before the cut, so there the cut is one item later.
        """
        if self._ranks is None or self._layout.fixed_cuts:
            return room
        shift = 1 if self._layout.framed else 2
        # A cut before item c is at the place after token c - shift.
        last = self._first_token[document] + start + room - shift
        window = min(room // 2, room - shift)
        # By free slots: 0, 1, .. window.
        ranks = self._ranks[last - window : last + 1][::-1] * (waiting[: window + 1] > 0)
        free = int(np.argmax(ranks))  # the longest of the best
        if not ranks[free]:
            return room
        waiting[free] -= 1
        return room - free

    def _fill_gaps(self, rows: list[list[_Part]], rooms: list[int]) -> list[list[_Part]]:
        """Dissolve the emptiest rows and cut their parts to fill the gaps of the others."""
        layout = self._layout
        capacity, least = layout.sequence_length, self._min_items + layout.frame_slots
        gaps = sorted((i for i, room in enumerate(rooms) if room >= least), key=lambda i: -rooms[i])
        donors, content, free = 0, 0, sum(rooms[i] for i in gaps)
        for i in gaps:  # as many as the gaps of the rest can take
            content, free = content + capacity - rooms[i], free - rooms[i]
            if content > free:
                break
            donors += 1
        taken = set(gaps[:donors])
        pool = [(-p[2], p) for i in gaps[:donors] for p in rows[i]]
        heapq.heapify(pool)
        for i in gaps[donors:]:
            rows[i] = rows[i] + self._fill(rooms[i], pool, least)
        # What found no gap goes into rows of its own.
        left = [part for _, p in sorted(pool) for part in self._cut(p[0], p[1], p[1] + p[2])]
        bins = best_fit([self._size(part) for part in left], capacity)
        kept = [row for i, row in enumerate(rows) if i not in taken]
        return kept + [[left[i] for i in items] for items in bins]

    def _fill(self, room: int, pool: list[tuple[int, _Part]], least: int) -> list[_Part]:
        """Take parts from the pool, the longest first, and cut the last one to the room."""
        filling: list[_Part] = []
        while pool and room >= least:
            document, start, length = part = pool[0][1]
            if self._size(part) <= room:
                heapq.heappop(pool)
                filling.append(part)
                room -= self._size(part)
                continue
            longest = min(room - self._size((document, start, 0)), length - self._min_items)
            if longest < self._min_items:
                break
            rest = (document, start + longest, length - longest)
            heapq.heapreplace(pool, (-rest[2], rest))
            filling.append((document, start, longest))
            break
        return filling


def build_rows(parts: Parts, tokens: np.ndarray, token_counts: np.ndarray, layout: Layout) -> Rows:
    """Fill the rows with ids.

    Args:
        parts: Of `pack_parts`.
        tokens: Ids of all documents, one after the other, int32.
        token_counts: Tokens of each document.
        layout: As given to `pack_parts`.
    """
    names = ("cls", "sep") if layout.framed else ("bos", "eos")
    begin, end = map(layout.control_ids.need, names)
    # x of all documents: a begin, the tokens, an end.
    framed = np.empty(len(tokens) + 2 * len(token_counts), np.int32)
    first = np.cumsum(token_counts + 2) - (token_counts + 2)
    framed[first] = begin
    framed[first + token_counts + 1] = end
    framed[spans(first + 1, token_counts)] = tokens
    lengths = parts.length + parts.context
    starts = first[parts.document] + parts.start - parts.context
    counts = np.bincount(parts.row) if len(parts.row) else np.zeros(0, np.int64)
    context = parts.context if layout.overlap else None
    if not layout.framed:
        inputs = framed[spans(starts, lengths)]
        return Rows(counts, lengths, inputs, framed[starts + lengths], context)
    slots = lengths + 2
    inputs = np.empty(slots.sum(), np.int32)
    ends = np.cumsum(slots)
    inputs[ends - slots], inputs[ends - 1] = begin, end
    inputs[spans(ends - slots + 1, lengths)] = framed[spans(starts + 1, lengths)]
    return Rows(counts, slots, inputs, None, context)
