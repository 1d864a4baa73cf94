/* The memory of libmicrohttpd's connections, in place of its own memorypool.c.
 *
 * libmicrohttpd gives every connection a pool, of which a request's header, its strings and its answer's
 * header are taken; it wipes all of it after every request, so 10,000 idle connections of 32 KiB
 * occupy 320 MB, and each request costs a memset of 48 KiB. This one does not wipe, and puts what is
 * allocated "from the end" next to the start as far as it fits, so a connection with small requests
 * occupies one page, and none once it has been idle for a while.
 *
 * The functions have libmicrohttpd's names, so that the linker takes them instead of the archive's. They
 * match version 0.9.75; with another version nothing here is compiled and it uses its own.
 */
#pragma once

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>

#if MHD_VERSION >= 0x00097500 && MHD_VERSION < 0x00097600
#define RS_MHD_POOL
#endif

struct MemoryPool;

/* In the callback that tells of a new connection: its pool; NULL: it is libmicrohttpd's own. *at becomes NULL
 * when the pool is given back, which may be long before the end of the connection is told. */
void rs_mhd_pool_find(struct MemoryPool **at);
/* *at is about to go. */
void rs_mhd_pool_leave(struct MemoryPool **at);
/* Its connection has been idle for a while: gives its pages back, if nothing was received. The
 * addresses stay valid. NULL is fine. */
void rs_mhd_pool_rest(struct MemoryPool *pool);

#if defined(RS_MHD_POOL)
void MHD_init_mem_pools_(void);
struct MemoryPool *MHD_pool_create(size_t max);
void MHD_pool_destroy(struct MemoryPool *pool);
/* `from_end`: never reallocated. NULL: no room. */
void *MHD_pool_allocate(struct MemoryPool *pool, size_t size, bool from_end);
/* From the end. NULL: *missing bytes have to be freed at the start; SIZE_MAX: it will never fit. */
void *MHD_pool_try_alloc(struct MemoryPool *pool, size_t size, size_t *missing);
/* NULL: no room, and `old` stays. The last block grows and shrinks in place. */
void *MHD_pool_reallocate(struct MemoryPool *pool, void *old, size_t old_size, size_t new_size);
size_t MHD_pool_get_free(struct MemoryPool *pool);
/* Forgets all but `copy` bytes at `keep`, which become the start of a block of `size`. */
void *MHD_pool_reset(struct MemoryPool *pool, void *keep, size_t copy, size_t size);
#endif
