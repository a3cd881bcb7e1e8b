// Writes a body that a handler has returned: an async iterable, a Readable, a web ReadableStream, or a web Response.

import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { FastifyReply } from 'fastify'
import { BodyError, HeadSentError } from '../errors.ts'
import { isBlob } from '../exchange/content.ts'
import type { HttpDuplex } from '../exchange/http-duplex.ts'
import { isWriterField } from '../transfer/head-writer.ts'

/** What chunks are taken from, one after the other. */
type Source = Pick<AsyncIterator<unknown>, 'next' | 'return'>

interface WebStream extends AsyncIterable<unknown> {
  readonly locked: boolean
  getReader (): { read (): Promise<IteratorResult<unknown>>, cancel (): Promise<void> }
}

interface WebResponse {
  readonly status: number
  readonly headers: Iterable<[string, string]>
  readonly body: WebStream
}

export type Body = AsyncIterable<unknown> | WebResponse

/**
 * Whether a value is a body to write. A web stream that somebody else reads is not, and neither is a Response without a body:
 * Fastify refuses the one and sends the other.
 */
export function isBody (value: unknown): value is Body {
  if (typeof value !== 'object' || value === null) return false
  const content = isResponse(value) ? value.body : value
  return typeof (content as Partial<AsyncIterable<unknown>> | null)?.[Symbol.asyncIterator] === 'function' && (content as WebStream).locked !== true
}

/** Why Fastify must not send a value: JSON makes `{}` of it. Null if it may. */
export function bodyError (value: unknown): Error | null {
  if (isBlob(value)) return new BodyError('A Blob', 'return blob.stream()')
  const { next, [Symbol.iterator]: iterate } = (value ?? {}) as Partial<Iterator<unknown> & Iterable<unknown>>
  const isIterator = typeof next === 'function' && typeof iterate === 'function'
  return isIterator ? new BodyError('An iterator that is not asynchronous', 'return that of an "async function *", or an array') : null
}

/** Also one that was made in another realm, or by an undici from npm. As Fastify does it, which takes longer than to see that it is iterable. */
function isResponse (value: object): value is WebResponse {
  return !(Symbol.asyncIterator in value) && Object.prototype.toString.call(value) === '[object Response]'
}

/**
 * Writes a body, and ends the response. If the exchange fails, cancels the body at once, even while its source is silent, and
 * rejects.
 */
export async function writeBody (body: Body, reply: FastifyReply): Promise<void> {
  const duplex = reply.duplex as HttpDuplex
  let content: AsyncIterable<unknown>
  if (isResponse(body)) {
    if (!duplex.headersSent) takeHead(body, reply)
    content = body.body
  } else {
    content = body
  }
  const isItems = duplex.sendsItems && content === body
  if (reply.request.method === 'HEAD' || duplex.destroyed) cancelContent(content)
  else if (isReadable(content) && !isItems) return pipeline(content, duplex)
  else await copy(sourceOf(content), duplex, isItems)
  if (duplex.writableFinished) return
  // If other code has answered, the stream was destroyed without an error.
  if (duplex.destroyed) throw duplex.errored ?? new HeadSentError()
  duplex.end()
}

/** Fields of the connection over which `fetch` has received a Response. */
const CONNECTION_FIELDS = ['connection', 'upgrade']

function takeHead ({ status, headers }: WebResponse, reply: FastifyReply): void {
  reply.code(status)
  for (const [name, value] of headers) {
    if (!isWriterField(name) && !CONNECTION_FIELDS.includes(name)) reply.header(name, value)
  }
}

/** Also one of the package `readable-stream`. */
function isReadable (content: object): content is Readable {
  return typeof (content as NodeJS.ReadableStream).pipe === 'function'
}

/** The iterator of a web stream cannot be cancelled while it waits for a chunk. Its reader can. */
function sourceOf (content: AsyncIterable<unknown>): Source {
  if (typeof (content as WebStream).getReader !== 'function') return content[Symbol.asyncIterator]()
  const reader = (content as WebStream).getReader()
  return { next: () => reader.read(), return: () => reader.cancel() as Promise<any> }
}

/**
 * Copies a source to a stream, until the source has ended or the stream has closed. Not with pipeline(), which would cost more
 * than the rest of a short exchange, mostly for its AbortController; and with callbacks, which cost a chunk less than `await`.
 */
function copy (source: Source, stream: HttpDuplex, isItems: boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const onClose = (): void => {
      cancel(source)
      resolve()
    }
    const fail = (error: unknown): void => {
      stream.whenClosed = null
      reject(error)
    }
    const write = (result: IteratorResult<unknown>): void => {
      if (stream.destroyed) return // `onClose` follows
      try {
        if (result.done === true) {
          stream.whenClosed = null
          resolve()
        } else if (isItems ? stream.send(result.value) : stream.write(result.value)) {
          take()
        } else {
          stream.once('drain', take)
        }
      } catch (error) {
        cancel(source)
        fail(error)
      }
    }
    const take = (): void => {
      if (!stream.destroyed) next(source).then(write, fail)
    }
    stream.whenClosed = onClose
    take()
  })
}

/** As `for await` does it: the source may be no generator, and return something that is no promise. */
function next (source: Source): Promise<IteratorResult<unknown>> {
  try {
    return Promise.resolve(source.next())
  } catch (error) {
    return Promise.reject(error)
  }
}

function cancelContent (content: AsyncIterable<unknown>): void {
  // Not its iterator: that would leave a stream alone from which nothing was read.
  if (isReadable(content)) content.on('error', ignore).destroy()
  else cancel(sourceOf(content))
}

/** Nobody waits for it: a generator that is waiting for something itself returns only after that. */
async function cancel (source: Source): Promise<void> {
  try {
    await source.return?.()
  } catch {
    // The exchange has failed already, and that is reported.
  }
}

function ignore (): void {}
