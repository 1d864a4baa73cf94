#include "cmd/values.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/json.h"
#include "core/base/list.h"
#include "core/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "rserve.byvalue:"
enum { PIECE = 256 * 1024 }; /* bytes asked for at a time: as digits they fit a message twice */

struct fetch {
    struct rs_list link;
    uint64_t number;
    char *key, *name, *temp;
    json_t *build;
    int fd;
    int64_t at;
};

struct rs_values {
    char *dir;
    struct rs_values_ops ops;
    void *arg;
    struct rs_list fetches;
    uint64_t next;
};

/* The name comes from a message: it stays in the folder. */
static bool is_name(const char *name)
{
    return strncmp(name, "app_", 4) == 0 && !strchr(name, '/') && strlen(name) < 100;
}

struct rs_values *rs_values_new(const char *dir, const struct rs_values_ops *ops, void *arg)
{
    struct rs_values *v = rs_alloc(sizeof(*v));

    v->dir = rs_strdup(dir);
    v->ops = *ops;
    v->arg = arg;
    rs_list_init(&v->fetches);
    return v;
}

static void fetch_free(struct fetch *f)
{
    rs_list_remove(&f->link);
    if (f->fd >= 0) {
        close(f->fd);
        unlink(f->temp);
    }
    json_decref(f->build);
    free(f->key);
    free(f->name);
    free(f->temp);
    free(f);
}

void rs_values_free(struct rs_values *v)
{
    if (!v)
        return;
    while (!rs_list_empty(&v->fetches))
        fetch_free(rs_container_of(v->fetches.next, struct fetch, link));
    free(v->dir);
    free(v);
}

static void ask(struct rs_values *v, struct fetch *f)
{
    rs_auto(rs_json_decrefp) json_t *msg =
        json_pack("{s:s, s:s, s:I}", "op", "value", "name", f->name, "at", (json_int_t)f->at);

    f->number = ++v->next;
    v->ops.ask(f->number, msg, v->arg);
}

bool rs_values_hold(struct rs_values *v, const char *key, const json_t *build)
{
    const char *path = rs_json_str(build, "import_path", "");
    const char *name = path + strlen(PREFIX);
    rs_auto(rs_freep) char *file = NULL;
    struct fetch *f;

    if (strncmp(path, PREFIX, strlen(PREFIX)) != 0 || !is_name(name))
        return false;
    file = rs_asprintf("%s/%s", v->dir, name);
    if (access(file, R_OK) == 0)
        return false;
    f = rs_alloc(sizeof(*f));
    rs_list_init(&f->link);
    f->temp = rs_asprintf("%s/.%s.%llu", v->dir, name, (unsigned long long)v->next);
    f->fd = open(f->temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (f->fd < 0) {
        rs_log_warn("cannot keep an application", "file=%s error=\"%s\"", f->temp, strerror(errno));
        fetch_free(f);
        return false;
    }
    f->key = rs_strdup(key);
    f->name = rs_strdup(name);
    f->build = json_deep_copy(build);
    rs_list_push_back(&v->fetches, &f->link);
    ask(v, f);
    return true;
}

static void done(struct rs_values *v, struct fetch *f, const char *why)
{
    rs_auto(rs_freep) char *file = rs_asprintf("%s/%s", v->dir, f->name);

    if (!why && rename(f->temp, file) < 0)
        why = strerror(errno);
    if (why)
        rs_log_warn("an application cannot be fetched", "name=%s why=\"%s\"", f->name, why);
    else
        rs_closep(&f->fd); /* what it was is under its name now */
    rs_list_remove(&f->link);
    rs_list_init(&f->link);
    v->ops.ready(f->key, f->build, v->arg);
    fetch_free(f);
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Writes the digits' bytes; false: they are no digits, or the disk is full. */
static bool write_piece(struct fetch *f, const char *digits)
{
    size_t n = strlen(digits) / 2, at = 0;
    rs_auto(rs_freep) char *bytes = rs_alloc(n + 1);

    for (size_t i = 0; i < n; i++) {
        int high = digit(digits[2 * i]), low = digit(digits[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        bytes[i] = (char)(high << 4 | low);
    }
    while (at < n) {
        ssize_t w = write(f->fd, bytes + at, n - at);

        if (w < 0)
            return false;
        at += (size_t)w;
    }
    f->at += (int64_t)n;
    return true;
}

void rs_values_answer(struct rs_values *v, uint64_t number, const json_t *answer)
{
    const char *why = rs_json_str(answer, "error", NULL);
    const char *data = rs_json_str(answer, "data", "");

    rs_list_for_each (it, &v->fetches) {
        struct fetch *f = rs_container_of(it, struct fetch, link);
        int64_t before = f->at;

        if (f->number != number)
            continue;
        if (!why && !write_piece(f, data))
            why = "what came cannot be written";
        if (why || f->at >= rs_json_int(answer, "size", 0))
            done(v, f, why);
        else if (f->at == before)
            done(v, f, "the head sends nothing");
        else
            ask(v, f);
        return;
    }
}

void rs_values_head_gone(struct rs_values *v)
{
    while (!rs_list_empty(&v->fetches))
        done(v, rs_container_of(v->fetches.next, struct fetch, link), "the head is away");
}

json_t *rs_values_read(const char *dir, const char *name, int64_t at, struct rs_error *err)
{
    static const char digits[] = "0123456789abcdef";
    rs_auto(rs_freep) char *file = rs_asprintf("%s/%s", dir, name);
    rs_auto(rs_closep) int fd = -1;
    rs_auto(rs_freep) char *bytes = rs_alloc(PIECE);
    rs_auto(rs_freep) char *text = rs_alloc(2 * PIECE + 1);
    struct stat st;
    ssize_t n;

    if (!is_name(name)) {
        rs_error_set(err, RS_INVALID, "an application's name was expected");
        return NULL;
    }
    fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || (n = pread(fd, bytes, PIECE, at)) < 0) {
        rs_error_errno(err, errno,
                       "the head has no application %s: programs connect to the head's node", name);
        return NULL;
    }
    for (ssize_t i = 0; i < n; i++) {
        text[2 * i] = digits[(unsigned char)bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    return json_pack("{s:s, s:I}", "data", text, "size", (json_int_t)st.st_size);
}
