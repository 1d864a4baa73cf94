/* A pool is a run of whole pages:
 *
 *     | near: from its end down | blocks, growing up ...      ... from the end, growing down |
 *
 * Pools that are given back are kept for the next connections; but for the last few, their pages are
 * given back to the kernel. */
#include "net/http/mhd_pool.h"

#ifdef RS_MHD_POOL

#include "core/base/alloc.h"

#include <assert.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    ALIGN = 16,
    PAGE = 4096,
    NEAR = 1024, /* what 15 header fields and their like take */
    SLAB = 32,   /* pools that are mapped at once */
    WARM = 64,   /* spare ones that keep their pages */
};

struct MemoryPool {
    size_t near;     /* free bytes of that part */
    size_t pos, end; /* what is free between blocks and end, from `start` */
    size_t size;     /* of that part */
    size_t mapped;   /* all of it */
    char *start;
    struct MemoryPool **at; /* who else points to it; NULL: nobody */
};

static struct {
    pthread_mutex_t lock;
    struct MemoryPool **spare;
    size_t n, cap;
    size_t mapped; /* of each: those of one size are kept, which the ingress uses; 0: none yet */
} cache = {.lock = PTHREAD_MUTEX_INITIALIZER};

static __thread struct MemoryPool *newest;

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static char *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0); /* most is never touched */

    return p == MAP_FAILED ? NULL : p;
}

static struct MemoryPool *pool_of(char *memory, size_t mapped)
{
    struct MemoryPool *p = rs_alloc(sizeof(*p));

    p->mapped = mapped;
    p->size = mapped - NEAR;
    p->start = memory + NEAR;
    return p;
}

static void drop_pages(struct MemoryPool *p)
{
    (void)madvise(p->start - NEAR, p->mapped, MADV_DONTNEED);
}

/* --- spare ones -------------------------------------------------------------------------------- */

static void push(struct MemoryPool *p)
{
    cache.spare = rs_grow(cache.spare, &cache.cap, cache.n + 1, sizeof(struct MemoryPool *));
    cache.spare[cache.n++] = p;
}

static struct MemoryPool *take_spare(size_t mapped)
{
    char *slab;

    if (!cache.n && (slab = map(SLAB * mapped))) {
        for (size_t i = SLAB; i > 0; i--)
            push(pool_of(slab + (i - 1) * mapped, mapped));
    }
    return cache.n ? cache.spare[--cache.n] : NULL;
}

static struct MemoryPool *take(size_t mapped)
{
    struct MemoryPool *p = NULL;
    bool usual;
    char *memory;

    pthread_mutex_lock(&cache.lock);
    if (!cache.mapped)
        cache.mapped = mapped;
    usual = cache.mapped == mapped;
    if (usual)
        p = take_spare(mapped);
    pthread_mutex_unlock(&cache.lock);
    if (usual || !(memory = map(mapped)))
        return p;
    return pool_of(memory, mapped);
}

static void give(struct MemoryPool *p)
{
    bool usual, cold;

    pthread_mutex_lock(&cache.lock);
    usual = cache.mapped == p->mapped;
    cold = cache.n >= WARM;
    if (usual && !cold)
        push(p);
    pthread_mutex_unlock(&cache.lock);
    if (!usual) {
        (void)munmap(p->start - NEAR, p->mapped);
        free(p);
    } else if (cold) {
        drop_pages(p);
        pthread_mutex_lock(&cache.lock);
        push(p);
        pthread_mutex_unlock(&cache.lock);
    }
}

/* --- what the ingress calls -------------------------------------------------------------------- */

void rs_mhd_pool_find(struct MemoryPool **at)
{
    *at = newest;
    if (newest)
        newest->at = at;
}

void rs_mhd_pool_leave(struct MemoryPool **at)
{
    if (*at)
        (*at)->at = NULL;
    *at = NULL;
}

/* MHD_pool_reset left a NUL at the start, where what is received goes first. */
void rs_mhd_pool_rest(struct MemoryPool *p)
{
    if (p && p->start[0] == '\0')
        drop_pages(p);
}

/* --- what libmicrohttpd calls ------------------------------------------------------------------ */

void MHD_init_mem_pools_(void)
{
}

struct MemoryPool *MHD_pool_create(size_t max)
{
    struct MemoryPool *p;

    newest = NULL;
    if (!max || max > SIZE_MAX / 2)
        return NULL;
    p = take(round_up(NEAR + max, PAGE));
    if (!p)
        return NULL;
    p->near = NEAR;
    p->pos = 0;
    p->end = p->size;
    p->start[0] = '\0';
    newest = p;
    return p;
}

void MHD_pool_destroy(struct MemoryPool *p)
{
    if (!p)
        return;
    if (p->at)
        *p->at = NULL;
    p->at = NULL;
    if (newest == p)
        newest = NULL;
    give(p);
}

enum { NEVER = 1 }; /* no multiple of ALIGN: larger than any pool */

/* What a block takes. */
static size_t needed(size_t size)
{
    return size > SIZE_MAX / 2 ? NEVER : round_up(size, ALIGN);
}

static bool fits(size_t need, size_t room)
{
    return need != NEVER && need <= room;
}

void *MHD_pool_try_alloc(struct MemoryPool *p, size_t size, size_t *missing)
{
    size_t need = needed(size);

    if (fits(need, p->near)) {
        p->near -= need;
        return p->start - NEAR + p->near;
    }
    if (!fits(need, p->end - p->pos)) {
        *missing = fits(need, p->end) ? need - (p->end - p->pos) : SIZE_MAX;
        return NULL;
    }
    p->end -= need;
    return p->start + p->end;
}

void *MHD_pool_allocate(struct MemoryPool *p, size_t size, bool from_end)
{
    size_t need = needed(size), missing;
    void *block;

    if (from_end)
        return MHD_pool_try_alloc(p, size, &missing);
    if (!fits(need, p->end - p->pos))
        return NULL;
    block = p->start + p->pos;
    p->pos += need;
    return block;
}

/* libmicrohttpd moves the start of its read buffer on, so `old` need not be aligned. */
void *MHD_pool_reallocate(struct MemoryPool *p, void *old, size_t old_size, size_t new_size)
{
    size_t at = old ? (size_t)((char *)old - p->start) : 0;
    void *block;

    assert(!old || at + old_size <= p->pos);
    if (old && round_up(at + old_size, ALIGN) == p->pos) {
        if (new_size > p->end - at)
            return NULL;
        p->pos = round_up(at + new_size, ALIGN);
        return old;
    }
    if (old && new_size <= old_size)
        return old;
    block = MHD_pool_allocate(p, new_size, false);
    if (block && old && old_size)
        memcpy(block, old, old_size);
    return block;
}

size_t MHD_pool_get_free(struct MemoryPool *p)
{
    return p->end - p->pos;
}

void *MHD_pool_reset(struct MemoryPool *p, void *keep, size_t copy, size_t size)
{
    assert(copy <= size && size <= p->size);
    if (copy && keep != p->start)
        memmove(p->start, keep, copy);
    if (!copy)
        p->start[0] = '\0';
    p->near = NEAR;
    p->pos = round_up(size, ALIGN);
    p->end = p->size;
    return p->start;
}

#else

void rs_mhd_pool_find(struct MemoryPool **at)
{
    *at = NULL;
}

void rs_mhd_pool_leave(struct MemoryPool **at)
{
    *at = NULL;
}

void rs_mhd_pool_rest(struct MemoryPool *p)
{
    (void)p;
}

#endif
