/* Scopes that clean up after themselves.
 *
 * rs_auto(rs_graph_freep) struct rs_graph *g = NULL; -- released on every way out of the scope.
 */
#pragma once

#include <stdlib.h>
#include <unistd.h>

/* A variable that is only there to be released is used by that. */
#define rs_auto(fn) __attribute__((cleanup(fn), unused))
#define RS_DEFINE_AUTO(type, fn)                                                                   \
    static inline void fn##p(type *p)                                                              \
    {                                                                                              \
        fn(*p);                                                                                    \
    }                                                                                              \
    _Static_assert(1, "takes the semicolon")

/* Hands the value out of the scope: `*ret = rs_steal(g); return 0;`. */
#define rs_steal(var)                                                                              \
    __extension__({                                                                                \
        __auto_type rs_old_ = (var);                                                               \
        (var) = NULL;                                                                              \
        rs_old_;                                                                                   \
    })

/* rs_auto(rs_freep) char *text = NULL; */
static inline void rs_freep(void *p)
{
    free(*(void **)p);
}

/* Closes *fd if it is one and marks it closed. */
static inline void rs_closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static inline int rs_steal_fd(int *fd)
{
    int old = *fd;

    *fd = -1;
    return old;
}
