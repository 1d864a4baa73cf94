/* Listening on a TCP port, and who has it when it is taken.
 *
 * Thread: any.
 */
#pragma once

#include "core/base/error.h"
#include "net/wire/tcp.h"

#include <stdint.h>

/* The process that listens on this port of `host` (an IP address or localhost): "pid 4242 (rserve run
 * app.yaml)". NULL: nobody, or it may not be seen. The caller frees. */
char *rs_port_holder(const char *host, uint16_t port);

/* "port 8000 is in use by pid 4242 (rserve run app.yaml): stop it or use --port" for EADDRINUSE;
 * other reasons are told as they are. `option` may be NULL. Returns -1. */
int rs_port_error(struct rs_error *err, int sys_errno, const char *host, uint16_t port,
                  const char *option);

/* Refuses as rs_port_error does if a bind to the port would fail, or would share it by SO_REUSEPORT
 * with a process of the same user. Port 0 is always free. */
RS_MUST_CHECK int rs_port_check(const char *host, uint16_t port, const char *option,
                                struct rs_error *err);

/* A listening, non-blocking socket into `ret`; its port into `bound` (may be NULL). */
RS_MUST_CHECK int rs_port_listen(const char *host, uint16_t port, const char *option, int *ret,
                                 struct rs_address *bound, struct rs_error *err);

/* 127.0.0.0/8, ::1, or the former written as IPv6. */
bool rs_address_is_loopback(const struct sockaddr *sa);
