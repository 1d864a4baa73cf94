#include "core/base/nearest.h"

#include <assert.h>
#include <string.h>

static int fold(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A' + 'a';
    return c == '-' ? '_' : c;
}

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t ab = a < b ? a : b;

    return ab < c ? ab : c;
}

size_t rs_edit_distance(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b);
    size_t rows[3][RS_NEAREST_MAX + 1]; /* of the matrix: i - 2, i - 1 and i */
    size_t *before = rows[0], *above = rows[1], *row = rows[2];

    assert(la <= RS_NEAREST_MAX && lb <= RS_NEAREST_MAX);
    memset(rows, 0, sizeof(rows));
    for (size_t j = 0; j <= lb; j++)
        row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t *spare = before;

        before = above;
        above = row;
        row = spare;
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            int ca = fold(a[i - 1]), cb = fold(b[j - 1]);

            row[j] = min3(above[j] + 1, row[j - 1] + 1, above[j - 1] + (ca != cb));
            if (i > 1 && j > 1 && ca == fold(b[j - 2]) && cb == fold(a[i - 2]) &&
                before[j - 2] + 1 < row[j])
                row[j] = before[j - 2] + 1;
        }
    }
    return row[lb];
}

struct rs_nearest rs_nearest_to(const char *word)
{
    return (struct rs_nearest){.word = word};
}

void rs_nearest_offer(struct rs_nearest *near, const char *candidate)
{
    size_t lw = strlen(near->word), lc = strlen(candidate);
    size_t distance, limit;

    if (lw == 0 || lw > RS_NEAREST_MAX || lc > RS_NEAREST_MAX)
        return;
    distance = rs_edit_distance(near->word, candidate);
    limit = ((lw > lc ? lw : lc) + 2) / 3; /* a third of the letters may be wrong */
    if (distance > limit && lw >= 3 && strncmp(near->word, candidate, lw) == 0)
        distance = limit; /* a beginning is near, but a real misspelling is nearer */
    if (distance > limit || distance >= lw || (near->best && distance >= near->distance))
        return;
    near->best = candidate;
    near->distance = distance;
}
