#include "cmd/saved.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/config/kept.h"
#include "core/events/kept.h"
#include "core/store/records.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BY_VALUE "rserve.byvalue:"

/* Kinds of records. */
static const char config_kind[] = "config", app_kind[] = "app", value_kind[] = "value",
                  counts_kind[] = "counts", history_kind[] = "history",
                  forecasts_kind[] = "forecasts", rolls_kind[] = "rolls";

struct rs_saved {
    struct rs_records *records;
    char *aside; /* where a file that could not be used is; NULL */
    char *values_dir;
    json_t *written; /* what is on the disk; NULL: not known */
    json_t *values;  /* {name: true}: files that are on the disk */
    json_t *broken;  /* {kind and name: true}: what could not be restored stays */
};

static bool none(const char *name, void *arg)
{
    (void)name;
    (void)arg;
    return false;
}

static int forget_all(struct rs_saved *s, struct rs_error *err)
{
    const char *const kinds[] = {config_kind,  app_kind,       value_kind, counts_kind,
                                 history_kind, forecasts_kind, rolls_kind, RS_EVENTS_KIND};

    if (rs_records_begin(s->records, err) < 0)
        return -1;
    for (size_t i = 0; i < RS_COUNT(kinds); i++) {
        if (rs_records_prune(s->records, kinds[i], none, NULL, err) < 0)
            return -1;
    }
    return rs_records_commit(s->records, err);
}

int rs_saved_open(struct rs_saved **ret, const char *dir, const char *values_dir, bool forget,
                  struct rs_error *err)
{
    rs_auto(rs_saved_freep) struct rs_saved *s = rs_alloc(sizeof(*s));
    rs_auto(rs_freep) char *path = rs_asprintf("%s/head.db", dir);

    s->values_dir = rs_strdup(values_dir);
    s->values = json_object();
    s->broken = json_object();
    if (rs_records_open(&s->records, path, &s->aside, err) < 0)
        return -1;
    if (s->aside)
        rs_log_error("what the head had kept cannot be used; it begins anew",
                     "file=\"%s\" moved_to=\"%s\"", path, s->aside);
    if (forget && forget_all(s, err) < 0)
        return -1;
    *ret = rs_steal(s);
    return 0;
}

void rs_saved_free(struct rs_saved *s)
{
    if (!s)
        return;
    rs_records_free(s->records);
    json_decref(s->written);
    json_decref(s->values);
    json_decref(s->broken);
    free(s->values_dir);
    free(s->aside);
    free(s);
}

const char *rs_saved_aside(const struct rs_saved *s)
{
    return s->aside;
}

struct rs_records *rs_saved_records(const struct rs_saved *s)
{
    return s->records;
}

const char *rs_saved_path(const struct rs_saved *s)
{
    return rs_records_path(s->records);
}

/* --- writing ------------------------------------------------------------------------------------- */

static int write_json(struct rs_saved *s, const char *kind, const char *name, const json_t *j,
                      struct rs_error *err)
{
    rs_auto(rs_freep) char *text = rs_json_dump(j);

    return rs_records_put(s->records, kind, name, text, strlen(text), err);
}

/* The file that the application was put into by a program; NULL: none. */
static const char *value_of(const json_t *app)
{
    const json_t *list = json_object_get(json_object_get(app, "document"), "applications");
    const char *path = rs_json_str(json_array_get(list, 0), "import_path", "");

    return strncmp(path, BY_VALUE, sizeof(BY_VALUE) - 1) == 0 ? path + sizeof(BY_VALUE) - 1 : NULL;
}

static int read_file(const char *path, struct rs_buf *out, struct rs_error *err)
{
    rs_auto(rs_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n;

    if (fd < 0)
        return rs_error_errno(err, errno, "cannot read '%s'", path);
    while ((n = read(fd, rs_buf_reserve(out, 65536), 65536)) > 0)
        rs_buf_commit(out, (size_t)n);
    return n < 0 ? rs_error_errno(err, errno, "cannot read '%s'", path) : 0;
}

static int write_value(struct rs_saved *s, const char *name, struct rs_error *err)
{
    rs_auto(rs_freep) char *path = rs_asprintf("%s/%s", s->values_dir, name);
    rs_auto(rs_buf_fini) struct rs_buf data = {0};

    if (strchr(name, '/') || json_object_get(s->values, name))
        return 0;
    if (read_file(path, &data, err) < 0 ||
        rs_records_put(s->records, value_kind, name, rs_buf_text(&data), rs_buf_len(&data), err) <
            0)
        return -1;
    return 0;
}

struct wanted {
    const struct rs_saved *s;
    const json_t *apps, *history;
};

static bool is_broken(const struct rs_saved *s, const char *kind, const char *name)
{
    rs_auto(rs_freep) char *key = rs_asprintf("%s %s", kind, name);

    return json_object_get(s->broken, key) != NULL;
}

static bool keep_app(const char *name, void *arg)
{
    const struct wanted *w = arg;

    return json_object_get(w->apps, name) || is_broken(w->s, app_kind, name);
}

/* Files of the applications, and of those that may come back. */
static json_t *values_of(const json_t *apps, const json_t *history)
{
    json_t *all = json_object(), *config, *entry;
    const char *app;
    size_t i;

    json_object_foreach ((json_t *)(uintptr_t)apps, app, config)
        if (value_of(config))
            json_object_set_new(all, value_of(config), json_true());
    json_object_foreach ((json_t *)(uintptr_t)history, app, config)
        json_array_foreach (json_object_get(config, "revisions"), i, entry) {
            const char *value = value_of(json_object_get(entry, "config"));

            if (value)
                json_object_set_new(all, value, json_true());
        }
    return all;
}

static bool keep_value(const char *name, void *arg)
{
    const struct wanted *w = arg;
    rs_auto(rs_json_decrefp) json_t *all = values_of(w->apps, w->history);

    return json_object_get(all, name) || json_object_size(w->s->broken) > 0; /* one of theirs? */
}

static bool keep_history(const char *name, void *arg)
{
    const struct wanted *w = arg;

    return json_object_get(w->history, name) || is_broken(w->s, history_kind, name);
}

static int write_history(struct rs_saved *s, const json_t *history, struct rs_error *err)
{
    const json_t *before = json_object_get(s->written, "history");
    struct wanted wanted = {.s = s, .history = history};
    const char *name;
    json_t *app;

    json_object_foreach ((json_t *)(uintptr_t)history, name, app)
        if (!json_equal(json_object_get(before, name), app) &&
            write_json(s, history_kind, name, app, err) < 0)
            return -1;
    return rs_records_prune(s->records, history_kind, keep_history, &wanted, err);
}

static int write_apps(struct rs_saved *s, const json_t *apps, const json_t *history,
                      struct rs_error *err)
{
    const json_t *before = json_object_get(s->written, "apps");
    struct wanted wanted = {s, apps, history};
    const char *name;
    json_t *app;

    json_object_foreach ((json_t *)(uintptr_t)apps, name, app) {
        const char *value = value_of(app);

        if (json_equal(json_object_get(before, name), app))
            continue;
        if ((value && write_value(s, value, err) < 0) ||
            write_json(s, app_kind, name, app, err) < 0)
            return -1;
    }
    if (rs_records_prune(s->records, app_kind, keep_app, &wanted, err) < 0)
        return -1;
    return rs_records_prune(s->records, value_kind, keep_value, &wanted, err);
}

static int write_one(struct rs_saved *s, const char *kind, const json_t *desired,
                     struct rs_error *err)
{
    const json_t *value = json_object_get(desired, kind);

    if (!json_is_object(value) || json_equal(json_object_get(s->written, kind), value))
        return 0;
    return write_json(s, kind, "", value, err);
}

int rs_saved_write(struct rs_saved *s, const json_t *desired, struct rs_error *err)
{
    const json_t *apps = json_object_get(desired, "apps");
    const json_t *history = json_object_get(desired, "history");

    if (json_equal(s->written, desired))
        return 0;
    if (rs_records_begin(s->records, err) < 0 || write_one(s, config_kind, desired, err) < 0 ||
        write_one(s, counts_kind, desired, err) < 0 ||
        write_one(s, forecasts_kind, desired, err) < 0 ||
        write_one(s, rolls_kind, desired, err) < 0 || write_apps(s, apps, history, err) < 0 ||
        write_history(s, history, err) < 0 || rs_records_commit(s->records, err) < 0)
        return -1;
    json_decref(s->written);
    s->written = json_deep_copy(desired);
    json_decref(s->values);
    s->values = values_of(apps, history);
    return 0;
}

/* --- reading ------------------------------------------------------------------------------------- */

struct restoring {
    struct rs_saved *s;
    const struct rs_saved_ops *ops;
    void *arg;
};

static void note_broken(struct rs_saved *s, const char *kind, const char *name, const char *why)
{
    rs_auto(rs_freep) char *key = rs_asprintf("%s %s", kind, name);

    rs_log_error("cannot restore what the head had kept", "kind=%s name=\"%s\" error=\"%s\"", kind,
                 name, why);
    json_object_set_new(s->broken, key, json_true());
}

static int parse(const char *data, size_t len, struct rs_config **ret, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *j = NULL;

    if (rs_json_parse(&j, data, len, "a kept configuration", err) < 0)
        return -1;
    return rs_config_kept(ret, j, err);
}

static void read_config(const char *name, const char *data, size_t len, void *arg)
{
    struct restoring *x = arg;
    struct rs_config *c = NULL;
    struct rs_error err = {0};

    if (parse(data, len, &c, &err) < 0 || x->ops->config(c, x->arg, &err) < 0)
        note_broken(x->s, config_kind, name, err.msg);
}

static void read_app(const char *name, const char *data, size_t len, void *arg)
{
    struct restoring *x = arg;
    struct rs_config *c = NULL;
    struct rs_error err = {0};

    if (parse(data, len, &c, &err) < 0 || x->ops->app(name, c, x->arg, &err) < 0)
        note_broken(x->s, app_kind, name, err.msg);
}

static void read_counts(const char *name, const char *data, size_t len, void *arg)
{
    struct restoring *x = arg;
    rs_auto(rs_json_decrefp) json_t *j = NULL;
    struct rs_error err = {0};

    if (rs_json_parse(&j, data, len, "kept counts", &err) < 0)
        note_broken(x->s, counts_kind, name, err.msg);
    else
        x->ops->counts(j, x->arg);
}

static void read_history(const char *name, const char *data, size_t len, void *arg)
{
    struct restoring *x = arg;
    rs_auto(rs_json_decrefp) json_t *j = NULL;
    struct rs_error err = {0};

    if (rs_json_parse(&j, data, len, "a kept history", &err) < 0)
        note_broken(x->s, history_kind, name, err.msg);
    else
        x->ops->history(name, j, x->arg);
}

static void read_forecasts(const char *name, const char *data, size_t len, void *arg)
{
    struct restoring *x = arg;
    rs_auto(rs_json_decrefp) json_t *j = NULL;
    struct rs_error err = {0};

    if (rs_json_parse(&j, data, len, "kept forecasts", &err) < 0)
        note_broken(x->s, forecasts_kind, name, err.msg);
    else if (x->ops->forecasts)
        x->ops->forecasts(j, x->arg);
}

static void read_rolls(const char *name, const char *data, size_t len, void *arg)
{
    struct restoring *x = arg;
    rs_auto(rs_json_decrefp) json_t *j = NULL;
    struct rs_error err = {0};

    if (rs_json_parse(&j, data, len, "kept rollouts", &err) < 0)
        note_broken(x->s, rolls_kind, name, err.msg);
    else if (x->ops->rolls)
        x->ops->rolls(j, x->arg);
}

static void read_value(const char *name, const char *data, size_t len, void *arg)
{
    struct restoring *x = arg;
    rs_auto(rs_freep) char *path = rs_asprintf("%s/%s", x->s->values_dir, name);
    rs_auto(rs_closep) int fd =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0 || rs_file_write(fd, data, len, 0) < 0)
        note_broken(x->s, value_kind, name, strerror(errno));
    else
        json_object_set_new(x->s->values, name, json_true());
}

void rs_saved_restore(struct rs_saved *s, const struct rs_saved_ops *ops, void *arg)
{
    struct restoring x = {s, ops, arg};
    struct rs_error err = {0};

    if (rs_records_each(s->records, counts_kind, read_counts, &x, &err) < 0 ||
        rs_records_each(s->records, forecasts_kind, read_forecasts, &x, &err) < 0 ||
        rs_records_each(s->records, rolls_kind, read_rolls, &x, &err) < 0 ||
        rs_records_each(s->records, history_kind, read_history, &x, &err) < 0 ||
        rs_records_each(s->records, value_kind, read_value, &x, &err) < 0 ||
        rs_records_each(s->records, config_kind, read_config, &x, &err) < 0 ||
        rs_records_each(s->records, app_kind, read_app, &x, &err) < 0)
        rs_log_error("cannot read what the head had kept", "error=\"%s\"", err.msg);
}
