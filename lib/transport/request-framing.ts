// How the body of a request is framed, or why it cannot be read.

import type { IncomingMessage } from 'node:http'
import { FieldLimitError, VersionError } from '../errors.ts'
import { isHttp2, minorVersion } from '../node/http2.ts'
import { fieldLimitReached } from '../node/parser.ts'
import { type Framing, NO_BODY, framingFields, requestFraming } from '../transfer/framing.ts'
import { checkHost } from '../transfer/host.ts'
import { checkConnect, connectTarget } from '../transfer/tunnel.ts'

/** Decides the framing of a request from its head. @returns the framing; with an `error`, the request cannot be read at all */
export function frameRequest (request: IncomingMessage): { framing: Framing, error: Error | null } {
  const fields = framingFields(request.rawHeaders)
  try {
    if (!isHttp2(request)) checkHead(request)
    if (request.method === 'CONNECT') {
      checkConnect(fields)
      connectTarget(targetOf(request), isHttp2(request))
    }
    return { framing: requestFraming(fields, minorVersion(request)), error: null }
  } catch (error) {
    return { framing: NO_BODY, error: error as Error }
  }
}

/** The target as the client has sent it. Where the app rewrites URLs, Fastify keeps it as `originalUrl`. */
export function targetOf (request: IncomingMessage & { originalUrl?: string }): string {
  return request.originalUrl ?? request.url!
}

/** What Node may let through in a head of HTTP/1. Of HTTP/2, nghttp2 checks the like. */
function checkHead (request: IncomingMessage): void {
  // The grammar of HTTP/1, and none of its rules (RFC 9110 section 15.6.6).
  if (request.httpVersionMajor !== 1) throw new VersionError(request.httpVersion)
  const limit = fieldLimitReached(request)
  if (limit !== null) throw new FieldLimitError(limit)
  checkHost(request.rawHeaders, minorVersion(request), targetOf(request))
}
