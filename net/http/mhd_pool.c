/* A pool is a run of whole pages:
 *
 *     | struct | near: from its end down | blocks, growing up ...      ... from the end, growing down |
 *
 * Pools that are given back are kept for the next connections; but for the last few, their pages are
 * given back to the kernel. */
#include "net/http/mhd_pool.h"

void rs_mhd_pool_use(void)
{
}

#ifdef RS_MHD_POOL

#include "core/base/alloc.h"

#include <assert.h>
#include <pthread.h>
#include <stdint.h>
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
};

static struct {
    pthread_mutex_t lock;
    struct MemoryPool **spare;
    size_t n, cap;
    size_t mapped; /* of each: those of one size are kept, which the ingress uses; 0: none yet */
} cache = {.lock = PTHREAD_MUTEX_INITIALIZER};

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static struct MemoryPool *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

/* --- spare ones -------------------------------------------------------------------------------- */

static void push(struct MemoryPool *p)
{
    cache.spare = rs_grow(cache.spare, &cache.cap, cache.n + 1, sizeof(struct MemoryPool *));
    cache.spare[cache.n++] = p;
}

static struct MemoryPool *take(size_t mapped)
{
    struct MemoryPool *p = NULL;
    char *slab;

    pthread_mutex_lock(&cache.lock);
    if (!cache.mapped)
        cache.mapped = mapped;
    if (cache.mapped == mapped && !cache.n && (slab = (char *)map(SLAB * mapped))) {
        for (size_t i = SLAB; i > 0; i--)
            push((void *)(slab + (i - 1) * mapped));
    }
    if (cache.mapped == mapped && cache.n)
        p = cache.spare[--cache.n];
    pthread_mutex_unlock(&cache.lock);
    return p ? p : cache.mapped == mapped ? NULL : map(mapped);
}

static void give(struct MemoryPool *p)
{
    size_t mapped = p->mapped;
    bool spare, cold;

    pthread_mutex_lock(&cache.lock);
    spare = cache.mapped == mapped;
    cold = cache.n >= WARM;
    if (spare && !cold)
        push(p);
    pthread_mutex_unlock(&cache.lock);
    if (!spare) {
        (void)munmap(p, mapped);
        return;
    }
    if (!cold)
        return;
    (void)madvise(p, mapped, MADV_DONTNEED);
    pthread_mutex_lock(&cache.lock);
    push(p);
    pthread_mutex_unlock(&cache.lock);
}

/* --- what libmicrohttpd calls ------------------------------------------------------------------ */

void MHD_init_mem_pools_(void)
{
}

struct MemoryPool *MHD_pool_create(size_t max)
{
    size_t before = round_up(sizeof(struct MemoryPool), ALIGN) + NEAR;
    size_t mapped;
    struct MemoryPool *p;

    if (!max || max > SIZE_MAX / 2)
        return NULL;
    mapped = round_up(before + max, PAGE);
    p = take(mapped);
    if (!p)
        return NULL;
    *p = (struct MemoryPool){.near = NEAR,
                             .end = mapped - before,
                             .size = mapped - before,
                             .mapped = mapped,
                             .start = (char *)p + before};
    return p;
}

void MHD_pool_destroy(struct MemoryPool *p)
{
    if (p)
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
    if (block && old_size)
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
    p->near = NEAR;
    p->pos = round_up(size, ALIGN);
    p->end = p->size;
    return p->start;
}

#endif
