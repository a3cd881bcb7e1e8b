// The items of an injected exchange: written and read with the codecs of its formats. Their schemas are for the server.

import type { InjectDuplexOptions, InjectedResponse } from '../../types/index.d.ts'
import type { DecoderOptions, ItemDecoder, ItemFormat, ResolvedItemOptions, SendFormat, SendFormats } from '../../types/items.d.ts'
import { OptionError, ResponseError } from '../errors.ts'
import type { Receiving } from '../exchange/items.ts'
import { NO_ITEM } from '../items/codec.ts'
import { mediaTypeOf } from '../items/media-type.ts'
import { EventDecoder, serverSentEvents } from '../items/sse.ts'

/** The options of a request, with or without items. */
export type ClientOptions = InjectDuplexOptions & { receive?: SendFormats, send?: ItemFormat }

type MakeDecoder = (options: DecoderOptions) => ItemDecoder

/** The formats of an exchange. */
export interface ClientFormats {
  /** Empty: the response body is bytes. */
  readonly receive: readonly SendFormat[]
  /** null: the request body is bytes. */
  readonly send: ItemFormat | null
}

/** Bytes in both directions. */
export const NO_FORMATS: ClientFormats = Object.freeze({ receive: [], send: null })

/** @throws {OptionError} FST_ERR_DUPLEX_OPTION: these are no formats, or they are in the wrong direction */
export function clientFormats ({ receive, send }: ClientOptions): ClientFormats {
  const formats = receive === undefined ? [] : [receive].flat() as SendFormat[]
  for (const format of formats) {
    check('receive', format)
    decoderOf(format)
  }
  if (receive !== undefined && formats.length === 0) throw new OptionError('receive', 'expected at least one format')
  if (send !== undefined) {
    check('send', send)
    if (send.codec.decoder === undefined) throw new OptionError('send', `no server receives ${send.codec.mediaTypes[0]}`)
  }
  return { receive: formats, send: send ?? null }
}

function check (option: string, format: Partial<SendFormat> | null): void {
  if (typeof format?.codec !== 'object') throw new OptionError(option, 'expected a format of fastify-duplex/items, such as jsonl(schema)')
}

function decoderOf ({ codec }: SendFormat): MakeDecoder {
  if (codec.decoder !== undefined) return codec.decoder
  if (codec === serverSentEvents) return (options) => new EventDecoder(options)
  throw new OptionError('receive', `${codec.mediaTypes[0]} can only be sent`)
}

/** The JSON text of an item, for `encodeItem`. Throws if there is none. */
export function toJson (item: unknown): string {
  const json = JSON.stringify(item)
  if (json === undefined) throw new TypeError('there is no JSON for it')
  return json
}

/** Reads the items of a response. Its content-type chooses the format. */
export class ResponseItems implements Receiving {
  /** Known as soon as the first bytes of the body are read. */
  keepsInvalid = false
  private readonly formats: readonly SendFormat[]
  private readonly head: () => InjectedResponse

  /** @param head gives the head of the response, which comes before its body */
  constructor (formats: readonly SendFormat[], head: () => InjectedResponse) {
    this.formats = formats
    this.head = head
  }

  makeDecoder (): ItemDecoder {
    return new ResponseDecoder((hasBody) => this.chooseDecoder(hasBody))
  }

  validate (item: unknown): unknown {
    return item
  }

  /** @returns null if there is nothing to decode */
  private chooseDecoder (hasBody: boolean): ItemDecoder | null {
    const head = this.head()
    const { 'content-type': contentType } = head.headers
    const type = mediaTypeOf(String(contentType ?? ''))
    const format = this.formats.find(({ codec }) => codec.mediaTypes.includes(type!))
    if (format === undefined) return hasBody || head.statusCode >= 400 ? new ErrorDecoder(head) : null
    const { maxItemSize, invalid } = format.options as ResolvedItemOptions
    this.keepsInvalid = invalid === 'item'
    return decoderOf(format)({ maxItemSize, parse: null })
  }
}

/** A decoder that is chosen when the head of the response is known. */
class ResponseDecoder implements ItemDecoder {
  // Only validation asks for these two. What errors say is of the decoder that has made them.
  readonly index = -1
  readonly offset = 0
  private readonly choose: (hasBody: boolean) => ItemDecoder | null
  private chosen: ItemDecoder | null = null

  constructor (choose: (hasBody: boolean) => ItemDecoder | null) {
    this.choose = choose
  }

  write (chunk: Buffer): void {
    this.chosen ??= this.choose(true)
    this.chosen!.write(chunk)
  }

  end (): void {
    this.chosen ??= this.choose(false)
    this.chosen?.end()
  }

  next (): unknown {
    return this.chosen === null ? NO_ITEM : this.chosen.next()
  }
}

/** Bytes of an error answer that are kept for its error. */
const MAX_ANSWER_SIZE = 64 * 1024

/** For a response in another content-type: most often the answer of an error handler, whose message the tester wants to see. */
class ErrorDecoder implements ItemDecoder {
  readonly index = -1
  readonly offset = 0
  private readonly head: InjectedResponse
  private readonly chunks: Buffer[] = []
  private size = 0
  private isComplete: boolean

  constructor (head: InjectedResponse) {
    this.head = head
    this.isComplete = head.statusCode < 400 // this body may be a stream without an end
  }

  write (chunk: Buffer): void {
    this.chunks.push(chunk)
    this.size += chunk.length
    if (this.size > MAX_ANSWER_SIZE) this.isComplete = true
  }

  end (): void {
    this.isComplete = true
  }

  next (): unknown {
    if (!this.isComplete) return NO_ITEM
    const { statusCode, statusMessage, headers } = this.head
    const body = statusCode < 400 ? undefined : parse(Buffer.concat(this.chunks).toString())
    const message = typeof body === 'string' ? body : (body as { message?: unknown } | null | undefined)?.message
    const why = [`${statusCode} ${statusMessage}`, `content-type ${headers['content-type'] ?? '(none)'}`]
    throw new ResponseError(statusCode, why.join(', ') + (message === undefined || message === '' ? '' : `: ${message}`), body)
  }
}

function parse (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
