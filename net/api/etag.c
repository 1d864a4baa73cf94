#include "net/api/etag.h"

#include "core/base/alloc.h"
#include "core/base/cleanup.h"
#include "core/base/hash.h"
#include "core/base/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void tag_of(const json_t *j, char out[RS_ETAG_LEN])
{
    static const struct rs_hash_key key; /* nobody gains by two configurations with one tag */
    rs_auto(rs_freep) char *text =
        j ? json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : NULL;
    struct rs_hash_sum sum;
    struct rs_hash h;

    rs_hash_init(&h, &key);
    rs_hash_put(&h, text ? text : "", text ? strlen(text) : 0);
    sum = rs_hash_end(&h);
    snprintf(out, RS_ETAG_LEN, "\"%016" PRIx64 "%016" PRIx64 "\"", sum.h[0], sum.h[1]);
}

static const json_t *named(const json_t *config, const char *app)
{
    const json_t *list = json_object_get(json_object_get(config, "document"), "applications");
    const json_t *a;
    size_t i;

    json_array_foreach ((json_t *)(uintptr_t)list, i, a)
        if (strcmp(rs_json_str(a, "name", "default"), app) == 0)
            return a;
    return NULL;
}

const json_t *rs_api_desired_app(const json_t *desired, const char *app)
{
    const json_t *own = json_object_get(json_object_get(desired, "apps"), app);

    return own ? named(own, app) : named(json_object_get(desired, "config"), app);
}

bool rs_api_etag(const json_t *desired, const char *app, char out[RS_ETAG_LEN])
{
    const json_t *j = app ? rs_api_desired_app(desired, app)
                          : json_object_get(json_object_get(desired, "config"), "document");

    if (app && !j)
        return false;
    tag_of(j, out);
    return true;
}

bool rs_api_etag_named(const char *header, const char *etag)
{
    while (*header) {
        size_t n;

        header += strspn(header, " \t,");
        if (strncmp(header, "W/", 2) == 0) /* compared as if it were strong */
            header += 2;
        n = strcspn(header, ",");
        while (n > 0 && (header[n - 1] == ' ' || header[n - 1] == '\t'))
            n--;
        if (n == 1 && *header == '*' && etag)
            return true;
        if (etag && n == strlen(etag) && memcmp(header, etag, n) == 0)
            return true;
        header += strcspn(header, ",");
    }
    return false;
}
