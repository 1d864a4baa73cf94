#include "sched/history.h"

#include "core/base/json.h"

#include <string.h>

void rs_history_fini(struct rs_history *h)
{
    json_decref(h->apps);
    h->apps = NULL;
}

static json_t *revisions(const struct rs_history *h, const char *app)
{
    return json_object_get(json_object_get(h->apps, app), "revisions");
}

static const json_t *newest(const struct rs_history *h, const char *app)
{
    const json_t *list = revisions(h, app);

    return json_array_size(list) ? json_array_get(list, json_array_size(list) - 1) : NULL;
}

static bool same(const json_t *entry, const json_t *config)
{
    return config && json_equal(json_object_get(entry, "config"), config);
}

bool rs_history_ran(struct rs_history *h, const char *app, const struct rs_history_entry *e)
{
    const json_t *last = newest(h, app);
    json_t *mine, *list;
    int64_t next;

    if (last && same(last, e->config))
        return false;
    if (!h->apps)
        h->apps = json_object();
    mine = json_object_get(h->apps, app);
    if (!mine) {
        mine = json_pack("{s:i, s:[]}", "next", 1, "revisions");
        json_object_set_new(h->apps, app, mine);
    }
    list = json_object_get(mine, "revisions");
    next = rs_json_int(mine, "next", 1);
    json_array_append_new(
        list, json_pack("{s:I, s:o, s:b, s:f, s:s?, s:o}", "revision", (json_int_t)next, "config",
                        json_deep_copy(e->config), "program", e->program, "time_s", e->time_s,
                        "who", e->who, "rollback_of",
                        e->rollback_of ? json_integer((json_int_t)e->rollback_of) : json_null()));
    json_object_set_new(mine, "next", json_integer((json_int_t)next + 1));
    while (json_array_size(list) > RS_HISTORY_MAX)
        json_array_remove(list, 0);
    return true;
}

/* NULL: none. */
static const json_t *previous(const struct rs_history *h, const char *app, const json_t *now)
{
    const json_t *list = revisions(h, app);

    for (size_t i = json_array_size(list); i-- > 0;)
        if (!same(json_array_get(list, i), now))
            return json_array_get(list, i);
    return NULL;
}

int rs_history_find(const struct rs_history *h, const char *app, int64_t revision,
                    const json_t *now, const json_t **ret, struct rs_error *err)
{
    const json_t *list = revisions(h, app), *e;
    size_t i;

    if (revision == 0) {
        e = previous(h, app, now);
        if (!e)
            return rs_error_set(err, list ? RS_CONFLICT : RS_NOT_FOUND,
                                "there is nothing to go back to: application '%.80s' has no other "
                                "configuration that ran",
                                app);
        *ret = e;
        return 0;
    }
    json_array_foreach (list, i, e)
        if (rs_json_int(e, "revision", 0) == revision) {
            *ret = e;
            return 0;
        }
    if (json_array_size(list) == 0)
        return rs_error_set(err, RS_NOT_FOUND, "no configuration of application '%.80s' ever ran",
                            app);
    return rs_error_set(
        err, RS_NOT_FOUND,
        "application '%.80s' has no revision %lld; the last %zu that ran are %lld to %lld", app,
        (long long)revision, json_array_size(list),
        (long long)rs_json_int(json_array_get(list, 0), "revision", 0),
        (long long)rs_json_int(newest(h, app), "revision", 0));
}

json_t *rs_history_list(const struct rs_history *h, const char *app, const json_t *now)
{
    const json_t *list = revisions(h, app), *back = previous(h, app, now);
    json_t *out = json_array();
    bool found = false;

    if (!list) {
        json_decref(out);
        return NULL;
    }
    for (size_t i = json_array_size(list); i-- > 0;) {
        json_t *e = json_copy(json_array_get(list, i));
        const json_t *document = json_object_get(json_object_get(e, "config"), "document");
        json_t *config = json_array_get(json_object_get(document, "applications"), 0);

        bool current = !found && same(e, now);

        found |= current;
        json_object_set_new(e, "current", json_boolean(current));
        json_object_set(e, "config", config);
        json_object_del(e, "program");
        json_array_append_new(out, e);
    }
    return json_pack("{s:s, s:o, s:o}", "name", app, "revisions", out, "back_to",
                     back ? json_incref(json_object_get(back, "revision")) : json_null());
}

void rs_history_prune(struct rs_history *h, bool (*there)(const char *app, void *arg), void *arg)
{
    size_t gone = 0;
    const char *app;
    json_t *mine;
    void *next;

    json_object_foreach (h->apps, app, mine)
        gone += !there(app, arg);
    json_object_foreach_safe (h->apps, next, app, mine) {
        if (gone <= RS_HISTORY_APPS)
            return;
        if (there(app, arg))
            continue;
        json_object_del(h->apps, app); /* they stand in the order in which they came */
        gone--;
    }
}

const json_t *rs_history_json(const struct rs_history *h)
{
    return h->apps;
}

void rs_history_restore(struct rs_history *h, const char *app, const json_t *kept)
{
    const json_t *list = json_object_get(kept, "revisions"), *e;
    json_t *good = json_array();
    int64_t next = 1;
    size_t i;

    json_array_foreach (list, i, e) {
        int64_t revision = rs_json_int(e, "revision", 0);

        if (revision < next || !json_is_object(json_object_get(e, "config")))
            continue;
        json_array_append(good, (json_t *)(uintptr_t)e);
        next = revision + 1;
    }
    if (json_array_size(good) == 0) {
        json_decref(good);
        return;
    }
    if (!h->apps)
        h->apps = json_object();
    json_object_set_new(h->apps, app,
                        json_pack("{s:I, s:o}", "next", (json_int_t)next, "revisions", good));
}
