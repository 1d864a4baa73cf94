/* JSON messages that a peer sends: what is accepted comes out as it went in. */
#include "core/base/json.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rs_auto(rs_json_decrefp) json_t *j = NULL;
    rs_auto(rs_json_decrefp) json_t *again = NULL;
    rs_auto(rs_freep) char *text = NULL;
    struct rs_error err = {0};
    const char *name;

    if (rs_json_parse(&j, (const char *)data, size, "fuzz", &err) < 0) {
        assert(err.msg[0] && !strchr(err.msg, '\n'));
        return 0;
    }
    name = rs_json_str(j, "name", "");
    assert(!*name || strlen(name) <= json_string_length(json_object_get(j, "name")));
    (void)rs_json_int(j, "n", 0);
    (void)rs_json_num(j, "n", 0);
    (void)rs_json_bool(j, "b", false);
    text = rs_json_dump(j);
    assert(!strchr(text, '\n'));
    if (rs_json_parse(&again, text, strlen(text), "fuzz", &err) < 0)
        abort();
    assert(json_equal(j, again));
    return 0;
}
