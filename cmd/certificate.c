#include "cmd/certificate.h"

#include "core/config/config.h"
#include "net/http/tls.h"

_Static_assert((int)RS_SSL_COUNT == (int)RS_TLS_FILES, "the same options in the same order");

int rs_certificate_check(const struct rs_config *c, struct rs_error *err)
{
    rs_auto(rs_tls_freep) struct rs_tls *tls = NULL;
    struct rs_tls_conf conf;
    enum rs_tls_file which;

    for (size_t i = 0; i < RS_TLS_FILES; i++)
        conf.of[i] = c->http.ssl[i];
    if (!conf.of[RS_TLS_KEY] || rs_tls_new(&tls, &conf, &which, err) == 0)
        return 0;
    rs_error_wrap(err, "http_options.%s", rs_tls_names[which]);
    if (!c->file || !c->http.ssl_at[which].line)
        return -1;
    return rs_error_wrap(err, "%.200s:%d:%d", c->file, c->http.ssl_at[which].line,
                         c->http.ssl_at[which].column);
}
