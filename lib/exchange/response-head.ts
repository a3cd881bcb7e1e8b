// The head of a response, from the status and the headers of the reply. It is made and checked in one call, so that an error can
// still be answered.

import type { FastifyError, FastifyReply } from 'fastify'
import type { OutgoingFields } from '../../types/index.d.ts'
import { FieldError, NoBodyError } from '../errors.ts'
import { isHttp2, minorVersion } from '../node/http2.ts'
import { isHeadWrapped } from '../node/response.ts'
import { type Framing, NO_BODY, TUNNEL, responseFraming } from '../transfer/framing.ts'
import { asksToClose, isReason, isSendable, writeResponseHead } from '../transfer/head-writer.ts'
import type { ResponseStart, Transport } from '../transport/transport.ts'
import { sendWrappedHead } from './wrapped-head.ts'

/**
 * Gives the head of the response to the transport.
 *
 * @param fields those of the reply
 * @param content the first content of the body, if there is any
 * @param isIncremental whether a head with a body says so
 * @returns the framing of the body
 * @throws {NoBodyError} FST_ERR_DUPLEX_NO_BODY: there is content, but this response has no body
 * @throws the errors of `responseFraming` and of `Transport.writeHead`
 */
export function writeHead (transport: Transport, reply: FastifyReply, fields: OutgoingFields, content: unknown, isIncremental: boolean): Framing {
  try {
    return write(transport, reply, fields, content, isIncremental)
  } catch (error) {
    // The answer to this error uses the same headers: remove those that cannot be sent.
    const present = reply.getHeaders() as OutgoingFields
    const refused = Object.keys(present).filter((name) => !isSendable(name, present[name]))
    for (const name of refused) reply.removeHeader(name)
    // Only those that are there: Node would take any other for a field that it must not add itself.
    refused.filter((name) => reply.raw.hasHeader(name)).forEach((name) => { reply.raw.removeHeader(name) })
    if (reply.statusCode < 200) reply.removeHeader('upgrade').code((error as FastifyError).statusCode!)
    throw error
  }
}

/**
 * Takes a reason phrase off a reply if it cannot be sent. Node would throw for it, and again for the answer to that error, which
 * would end the process.
 *
 * @returns the error; null if the reason phrase can be sent
 */
export function dropBadReason (reply: FastifyReply): Error | null {
  const reason = reasonOf(reply)
  if (reason === undefined || isReason(reason)) return null
  reply.raw.statusMessage = ''
  return new FieldError('reason phrase', reason)
}

/** HTTP/2 has none: reading it makes Node warn. */
function reasonOf ({ request, raw }: FastifyReply): string | undefined {
  return isHttp2(request.raw) ? undefined : raw.statusMessage
}

function write (transport: Transport, reply: FastifyReply, fields: OutgoingFields, content: unknown, isIncremental: boolean): Framing {
  const start = startOf(reply, fields, content)
  if (isIncremental) addIncremental(start)
  // Where Node writes the head, it calls those who have wrapped `writeHead`.
  if (transport.rawSocket === null || !isHeadWrapped(reply.raw)) {
    transport.writeHead(start)
    return start.framing
  }
  writeResponseHead(start, true) // checks it: those are not told of a head that cannot be sent
  let { framing } = start
  sendWrappedHead(reply.raw, start.fields, (fields) => {
    const changed = startOf(reply, fields, content)
    transport.writeHead(changed)
    framing = changed.framing
  })
  return framing
}

/**
 * Asks proxies to pass the body on as it comes (RFC 10036). The field is about the content of its own message: a response without
 * content, and a tunnel, do not have it.
 */
function addIncremental (start: ResponseStart): void {
  const { fields, framing } = start
  if (framing.kind !== 'none' && framing !== TUNNEL && fields.incremental === undefined) start.fields = { ...fields, incremental: '?1' }
}

/** @throws {NoBodyError} FST_ERR_DUPLEX_NO_BODY */
function startOf (reply: FastifyReply, fields: OutgoingFields, content: unknown): ResponseStart {
  const { statusCode, request } = reply
  const framing = responseFraming(request.method, statusCode, fields['content-length'], minorVersion(request.raw))
  if (framing === NO_BODY && (content as Buffer | null)?.length) throw new NoBodyError()
  const { sendDate } = reply.raw
  return { statusCode, statusMessage: reasonOf(reply), fields, framing, date: sendDate, close: asksToClose(fields.connection) }
}
