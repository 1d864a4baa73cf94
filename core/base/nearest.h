/* "Did you mean ...?": the candidate that a misspelt word most likely stands for.
 *
 *     struct rs_nearest near = rs_nearest_to(word);
 *     for (each candidate)
 *         rs_nearest_offer(&near, candidate);
 *     if (near.best) ... "did you mean '%s'?"
 *
 * Case and the difference between - and _ count for nothing; swapping two neighbours counts once.
 * Ownership: word and best are borrowed.
 */
#pragma once

#include <stddef.h>

struct rs_nearest {
    const char *word;
    const char *best; /* NULL: nothing offered so far is near enough */
    size_t distance;  /* of best */
};

struct rs_nearest rs_nearest_to(const char *word);
/* Equally near candidates: the one that was offered first stays. */
void rs_nearest_offer(struct rs_nearest *near, const char *candidate);

#define RS_NEAREST_MAX 63 /* longer words are near to nothing */
/* Edits between two words of at most RS_NEAREST_MAX bytes. */
size_t rs_edit_distance(const char *a, const char *b);
