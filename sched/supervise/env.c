/* Environments of child processes: see the end of spawn.h. */
#include "sched/supervise/spawn.h"

#include "core/base/alloc.h"

#include <assert.h>
#include <string.h>

static size_t env_find(const struct rs_env *e, const char *name, size_t len)
{
    for (size_t i = 0; i < e->n; i++)
        if (strncmp(e->list[i], name, len) == 0 && e->list[i][len] == '=')
            return i;
    return e->n;
}

void rs_env_put(struct rs_env *e, const char *assignment)
{
    const char *eq = strchr(assignment, '=');
    size_t at;

    assert(eq);
    at = env_find(e, assignment, (size_t)(eq - assignment));
    if (at < e->n) {
        free(e->list[at]);
    } else {
        e->list = rs_grow(e->list, &e->cap, e->n + 2, sizeof(*e->list));
        e->n++;
        e->list[e->n] = NULL;
    }
    e->list[at] = rs_strdup(assignment);
}

void rs_env_copy(struct rs_env *e, char *const *from)
{
    for (; from && *from; from++)
        if (strchr(*from, '='))
            rs_env_put(e, *from);
}

void rs_env_set(struct rs_env *e, const char *name, const char *value)
{
    if (value) {
        rs_auto(rs_freep) char *assignment = rs_asprintf("%s=%s", name, value);

        rs_env_put(e, assignment);
        return;
    }
    size_t at = env_find(e, name, strlen(name));

    if (at == e->n)
        return;
    free(e->list[at]);
    memmove(&e->list[at], &e->list[at + 1], (e->n - at) * sizeof(*e->list)); /* with the NULL */
    e->n--;
}

const char *rs_env_get(const struct rs_env *e, const char *name)
{
    size_t len = strlen(name);
    size_t at = env_find(e, name, len);

    return at < e->n ? e->list[at] + len + 1 : NULL;
}

const char *const *rs_env_list(struct rs_env *e)
{
    if (!e->list)
        e->list = rs_grow(e->list, &e->cap, 1, sizeof(*e->list));
    e->list[e->n] = NULL;
    return (const char *const *)e->list;
}

void rs_env_fini(struct rs_env *e)
{
    for (size_t i = 0; i < e->n; i++)
        free(e->list[i]);
    free(e->list);
    *e = (struct rs_env){0};
}
