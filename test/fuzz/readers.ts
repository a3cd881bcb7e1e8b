// The verdict of our own readers on a message, from its first byte on, with what they have read of its head.

import { bodyReader, receivedFraming, requestFraming } from '../../lib/transfer/framing.ts'
import { type RequestHead, RequestHeadReader, type ResponseHead, ResponseHeadReader } from '../../lib/transfer/head-reader.ts'
import { isTunnel } from '../../lib/transfer/tunnel.ts'
import type { Message } from './messages.ts'
import { type Head, type Verdict, accepted, comparable, incomplete, refused } from './verdict.ts'

const LIMITS = { maxTrailerSize: 16 * 1024, maxChunkExtensionSize: 16 * 1024 }

/** Reads a message that comes in its segments. */
export function readByReaders (message: Message): Verdict {
  const input = new Input(message)
  try {
    return message.kind === 'request' ? readRequest(input) : readResponse(message.method, input)
  } catch (error) {
    const { code, message } = error as Error & { code?: string }
    if (code === undefined || !code.startsWith('FST_ERR_DUPLEX_')) throw error
    return code === 'FST_ERR_DUPLEX_TRUNCATED' ? incomplete(message) : refused(message)
  }
}

function readRequest (input: Input): Verdict {
  const head = readHead(input, new RequestHeadReader()) as RequestHead | null
  if (head === null) return incomplete()
  const { method, target, minorVersion, host, fields } = head
  return readBody(input, requestFraming(fields, minorVersion), { start: `${method} ${target} HTTP/1.${minorVersion}`, host, fields: comparable(fields) })
}

function readResponse (method: string, input: Input): Verdict {
  let start = ''
  while (true) {
    const { statusCode, statusMessage, minorVersion, fields } = readHead(input, new ResponseHeadReader()) as ResponseHead
    start += `${statusCode} ${statusMessage}\n`
    const read = { start, fields: comparable(fields) }
    if (isTunnel(method, statusCode)) return accepted('', {}, input.at, read)
    if (statusCode >= 200) return readBody(input, receivedFraming(method, statusCode, fields, minorVersion), read)
  }
}

function readHead (input: Input, reader: RequestHeadReader | ResponseHeadReader): RequestHead | ResponseHead | null {
  for (let bytes = input.next(); bytes !== null && reader.head === null; bytes = input.next()) {
    reader.read(bytes)
    if (reader.error !== null) throw reader.error
    input.at += reader.consumed
    if (reader.head !== null) break
  }
  reader.end()
  if (reader.error !== null) throw reader.error
  return reader.head
}

function readBody (input: Input, framing: ReturnType<typeof requestFraming>, head: Head): Verdict {
  const reader = bodyReader(framing, LIMITS)
  let content = ''
  for (let bytes = input.next(); bytes !== null && !reader.done; bytes = input.next()) {
    content += reader.read(bytes).toString('latin1')
    if (reader.error !== null) throw reader.error
    input.at += reader.consumed
  }
  if (!reader.done) reader.end()
  if (reader.error !== null) throw reader.error
  return accepted(content, reader.trailers, input.at, head)
}

/** The bytes of a message, in its segments. */
class Input {
  at = 0
  private readonly bytes: Buffer
  private readonly ends: number[]

  constructor ({ bytes, cuts }: Message) {
    this.bytes = Buffer.from(bytes, 'latin1')
    this.ends = [...cuts, bytes.length]
  }

  /** The rest of this segment, or the next one; null at the end. A copy: readers may overwrite it. */
  next (): Buffer | null {
    const end = this.ends.find((end) => end > this.at)
    return end === undefined ? null : Buffer.from(this.bytes.subarray(this.at, end))
  }
}
