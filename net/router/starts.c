#include "net/router/starts.h"

#include "core/base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct rs_starts {
    void *map;
    _Atomic uint64_t *at; /* two rows; the replica writes the first, the node the second */
};

int rs_starts_new(struct rs_starts **ret, int *fd, struct rs_error *err)
{
    int made = memfd_create("rserve-starts", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct rs_starts *s;
    void *at = MAP_FAILED;

    /* Sealed: who shares it cannot take the memory away under the node's feet. */
    if (made >= 0 && ftruncate(made, RS_STARTS_SIZE) == 0 &&
        fcntl(made, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        at = mmap(NULL, RS_STARTS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, made, 0);
    if (at == MAP_FAILED) {
        int why = errno;

        rs_closep(&made);
        return rs_error_errno(err, why, "cannot share memory with a replica");
    }
    s = rs_alloc(sizeof(*s));
    s->map = at;
    s->at = at;
    *ret = s;
    *fd = made;
    return 0;
}

void rs_starts_free(struct rs_starts *s)
{
    if (!s)
        return;
    (void)munmap(s->map, RS_STARTS_SIZE);
    free(s);
}

static size_t place_of(uint64_t stream)
{
    return (size_t)(stream / 2) % RS_STARTS;
}

bool rs_starts_begun(const struct rs_starts *s, uint64_t stream)
{
    return atomic_load_explicit(&s->at[place_of(stream)], memory_order_acquire) >= stream;
}

/* The replica writes its mark and then reads ours, we write ours and then read its: one of the two sees
 * the other's, if neither read goes before its write. The replica, which is in a hurry, has no barrier;
 * the kernel makes it pass one for us, and us too. */
static void barrier(void)
{
    (void)syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
}

void rs_starts_take_back(struct rs_starts *s, const uint64_t *streams, bool *kept, size_t n)
{
    if (!n)
        return;
    for (size_t i = 0; i < n; i++)
        atomic_store_explicit(&s->at[RS_STARTS + place_of(streams[i])], streams[i],
                              memory_order_seq_cst);
    barrier();
    for (size_t i = 0; i < n; i++)
        kept[i] = rs_starts_begun(s, streams[i]);
}
