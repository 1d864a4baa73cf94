#include "core/base/arena.h"

#include "core/base/alloc.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 16384

struct rs_arena_block {
    struct rs_arena_block *next;
    alignas(max_align_t) char data[];
};

void rs_arena_fini(struct rs_arena *a)
{
    while (a->blocks) {
        struct rs_arena_block *b = a->blocks;

        a->blocks = b->next;
        free(b);
    }
    *a = (struct rs_arena){0};
}

void *rs_arena_alloc(struct rs_arena *a, size_t size)
{
    size_t need = (size + alignof(max_align_t) - 1) / alignof(max_align_t) * alignof(max_align_t);
    void *p;

    if (!a->blocks || a->size - a->used < need) {
        struct rs_arena_block *b;

        a->size = need > BLOCK ? need : BLOCK;
        a->used = 0;
        b = rs_alloc(sizeof(*b) + a->size);
        b->next = a->blocks;
        a->blocks = b;
    }
    p = a->blocks->data + a->used;
    a->used += need;
    return p;
}

char *rs_arena_strndup(struct rs_arena *a, const char *text, size_t n)
{
    char *copy = rs_arena_alloc(a, n + 1);

    memcpy(copy, text, n);
    return copy;
}
