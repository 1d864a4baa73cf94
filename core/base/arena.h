/* Memory of many small objects that die together: a parsed document.
 *
 * Ownership: {0} is a valid empty arena; everything that came out of it lives until rs_arena_fini.
 */
#pragma once

#include <stddef.h>

struct rs_arena_block;

struct rs_arena {
    struct rs_arena_block *blocks; /* the newest first */
    size_t used, size;             /* of the newest block */
};

void rs_arena_fini(struct rs_arena *a);
void *rs_arena_alloc(struct rs_arena *a, size_t size); /* zeroed, aligned for any type */
char *rs_arena_strndup(struct rs_arena *a, const char *text, size_t n);
