#include "cmd/asks.h"

#include "core/base/alloc.h"
#include "core/base/cleanup.h"
#include "core/base/json.h"

static char *key_of(const char *from, uint64_t stream)
{
    return rs_asprintf("%s %llu", from, (unsigned long long)stream);
}

void rs_asks_fini(struct rs_asks *a)
{
    json_decref(a->waiting);
    a->waiting = NULL;
}

int rs_asks_put(struct rs_asks *a, json_t *msg)
{
    rs_auto(rs_freep) char *key =
        key_of(rs_json_str(msg, "from", ""), (uint64_t)rs_json_int(msg, "stream", 0));

    if (!a->waiting)
        a->waiting = json_object();
    if (json_object_size(a->waiting) >= RS_ASKS_MAX)
        return -1;
    return json_object_set(a->waiting, key, msg);
}

void rs_asks_answered(struct rs_asks *a, const char *from, uint64_t stream)
{
    rs_auto(rs_freep) char *key = key_of(from, stream);

    json_object_del(a->waiting, key);
}

void rs_asks_each(const struct rs_asks *a, void (*fn)(const json_t *msg, void *arg), void *arg)
{
    const char *key;
    json_t *msg;

    json_object_foreach (a->waiting, key, msg)
        fn(msg, arg);
}

void rs_asks_clear(struct rs_asks *a)
{
    json_object_clear(a->waiting);
}
