#include "core/graph/value.h"

#include "core/base/alloc.h"
#include "core/base/cleanup.h"
#include "core/base/file.h"
#include "core/base/json.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

struct rs_value *rs_value_new(void)
{
    struct rs_value *v = rs_alloc(sizeof(*v));

    v->refs = 1;
    v->fd = -1;
    return v;
}

struct rs_value *rs_value_ref(struct rs_value *v)
{
    v->refs++;
    return v;
}

void rs_value_unref(struct rs_value *v)
{
    if (!v || --v->refs)
        return;
    json_decref(v->json);
    rs_buf_fini(&v->headers);
    rs_buf_fini(&v->body);
    if (v->fd >= 0)
        close(v->fd);
    free(v);
}

void rs_value_put_header(struct rs_value *v, const char *name, const char *text)
{
    rs_buf_append(&v->headers, name, strlen(name) + 1);
    rs_buf_append(&v->headers, text, strlen(text) + 1);
}

struct rs_value *rs_value_made(unsigned status, const char *type, const void *data, size_t len)
{
    struct rs_value *v = rs_value_new();

    v->status = status;
    if (type)
        rs_value_put_header(v, "content-type", type);
    if (len)
        rs_buf_append(&v->body, data, len);
    v->len = len;
    return v;
}

struct rs_value *rs_value_line(unsigned status, const char *fmt, ...)
{
    rs_auto(rs_freep) char *text = NULL;
    va_list args;

    va_start(args, fmt);
    text = rs_vasprintf(fmt, args);
    va_end(args);
    for (char *p = text; *p; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = ' ';
    }
    return rs_value_made(status, "text/plain; charset=utf-8", text, strlen(text));
}

int rs_value_own(struct rs_value *v, bool sealed)
{
    rs_auto(rs_closep) int fd = memfd_create("rserve-value", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return -1;
    if (v->fd < 0 ? rs_file_write(fd, rs_buf_head(&v->body), (size_t)v->len, 0) < 0
                  : rs_file_copy(v->fd, 0, fd, 0, v->len) < 0)
        return -1;
    if (sealed &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        return -1;
    rs_buf_clear(&v->body);
    rs_closep(&v->fd);
    v->fd = rs_steal_fd(&fd);
    return 0;
}

const char *rs_value_header(const struct rs_value *v, const char *name)
{
    const char *at = rs_buf_head(&v->headers);
    const char *end = at ? at + rs_buf_len(&v->headers) : NULL;

    while (at && at < end) {
        const char *value = at + strlen(at) + 1;

        if (value >= end)
            return NULL;
        if (strcmp(at, name) == 0)
            return value;
        at = value + strlen(value) + 1;
    }
    return NULL;
}

int rs_value_bytes(struct rs_value *v, const char **data, struct rs_error *err)
{
    if (v->fd >= 0 && !rs_buf_len(&v->body)) {
        char *to = rs_buf_reserve(&v->body, (size_t)v->len);

        if (rs_file_read(v->fd, to, (size_t)v->len, 0) < 0)
            return rs_error_errno(err, errno, "cannot read a body of %llu bytes",
                                  (unsigned long long)v->len);
        rs_buf_commit(&v->body, (size_t)v->len);
    }
    *data = v->len ? rs_buf_head(&v->body) : "";
    return 0;
}

static bool is_json_type(const char *type)
{
    size_t n = type ? strcspn(type, ";") : 0;

    while (n && (type[n - 1] == ' ' || type[n - 1] == '\t'))
        n--;
    return (n == 16 && strncasecmp(type, "application/json", 16) == 0) ||
           (n > 5 && strncasecmp(type + n - 5, "+json", 5) == 0);
}

int rs_value_json(struct rs_value *v, const json_t **ret, struct rs_error *err)
{
    json_error_t why;
    const char *data = NULL;

    if (!v->json) {
        if (rs_value_bytes(v, &data, err) < 0)
            return -1;
        if (!v->len)
            return rs_error_set(err, RS_INVALID, "expected JSON, found nothing");
        v->json = json_loadb(data, (size_t)v->len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
        if (!v->json)
            return rs_error_set(err, RS_INVALID,
                                "expected JSON, found none: line %d, column %d: %s", why.line,
                                why.column, why.text);
    }
    *ret = v->json;
    return 0;
}

void rs_value_put_string(struct rs_buf *out, const char *text, size_t len)
{
    rs_buf_append(out, "\"", 1);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c == '"' || c == '\\')
            rs_buf_printf(out, "\\%c", c);
        else if (c == '\n')
            rs_buf_puts(out, "\\n");
        else if (c < ' ' || c == 0x7f)
            rs_buf_printf(out, "\\u%04x", c);
        else
            rs_buf_append(out, text + i, 1);
    }
    rs_buf_append(out, "\"", 1);
}

int rs_value_put_json(struct rs_value *v, struct rs_buf *out, struct rs_error *err)
{
    const char *type = rs_value_header(v, "content-type"), *data = NULL;
    const json_t *json = NULL;

    if (is_json_type(type)) {
        if (rs_value_json(v, &json, err) < 0 || rs_value_bytes(v, &data, err) < 0)
            return -1;
        rs_buf_append(out, data, (size_t)v->len);
        return 0;
    }
    if (type && strncasecmp(type, "text/", 5) != 0)
        return rs_error_set(err, RS_INVALID,
                            "expected application/json or text, found a body of type %.60s", type);
    if (rs_value_bytes(v, &data, err) < 0)
        return -1;
    assert(data);
    rs_auto(rs_json_decrefp) json_t *text = json_stringn(data, (size_t)v->len);

    if (!text)
        return rs_error_set(err, RS_INVALID, "expected text in UTF-8, found other bytes");
    rs_value_put_string(out, data, (size_t)v->len);
    return 0;
}

size_t rs_value_weight(const struct rs_value *v)
{
    /* A memfd is memory too, and what was read of it stays beside it. */
    return sizeof(*v) + v->headers.cap + v->body.cap + (v->fd >= 0 ? (size_t)v->len : 0);
}

const json_t *rs_json_at(const json_t *doc, const char *path)
{
    while (doc && *path) {
        size_t n = strcspn(path, ".");
        rs_auto(rs_freep) char *key = rs_strndup(path, n);

        if (json_is_array(doc)) {
            char *end;
            unsigned long i = strtoul(key, &end, 10);

            doc = *end || !*key ? NULL : json_array_get(doc, i);
        } else {
            doc = json_object_get(doc, key);
        }
        path += n + (path[n] == '.');
    }
    return doc;
}
