// How the body of a request is framed, or why it cannot be read.

import type { IncomingMessage } from 'node:http'
import { FieldLimitError } from '../errors.ts'
import { fieldLimitReached } from '../node/parser.ts'
import { type Framing, NO_BODY, framingFields, minorVersion, requestFraming } from '../transfer/framing.ts'
import { checkConnect } from '../transfer/tunnel.ts'

/** Decides the framing of a request from its head. @returns the framing; with an `error`, the request cannot be read at all */
export function frameRequest (request: IncomingMessage): { framing: Framing, error: Error | null } {
  const fields = framingFields(request.rawHeaders)
  try {
    const limit = fieldLimitReached(request)
    if (limit !== null) throw new FieldLimitError(limit)
    if (request.method === 'CONNECT') checkConnect(fields)
    return { framing: requestFraming(fields, minorVersion(request)), error: null }
  } catch (error) {
    return { framing: NO_BODY, error: error as Error }
  }
}
