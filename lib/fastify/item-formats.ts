// The items of a route: its formats are compiled for the app, and for each request one of them is chosen.

import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import Negotiator from 'negotiator'
import type { ItemFormat, SendFormat } from '../../types/items.d.ts'
import { MediaTypeError, NotAcceptableError, OptionError } from '../errors.ts'
import type { Receiving, Sending } from '../exchange/items.ts'
import { mediaTypeOf } from '../items/media-type.ts'
import type { DeclaredItems } from '../options.ts'
import { compileReceiving, compileSending } from './item-schemas.ts'

const UTF8_PARAMETER = /;\s*charset\s*=\s*"?utf-?8"?(?=\s*(?:[;,]|$))/gi

export class ItemFormats {
  private readonly receive: readonly ItemFormat[]
  private readonly send: readonly SendFormat[]
  // By media type. Filled when the app is ready.
  private readonly receiving = new Map<string, Receiving>()
  private readonly sending = new Map<string, Sending>()

  /** @throws {OptionError} FST_ERR_DUPLEX_OPTION: these are no formats */
  constructor ({ receive, send }: DeclaredItems) {
    this.receive = formatsOf('receive', receive)
    this.send = formatsOf('send', send)
    const sendOnly = this.receive.find(({ codec }) => codec.decoder === undefined)
    if (sendOnly !== undefined) throw new OptionError('receive', `${sendOnly.codec.mediaTypes[0]} can only be sent`)
    const receiveOnly = this.send.find(({ codec: { frame, encode } }) => frame === undefined && encode === undefined)
    if (receiveOnly !== undefined) throw new OptionError('send', `${receiveOnly.codec.mediaTypes[0]} can only be received`)
  }

  /** Compiles the schemas of the route, with the compilers of its instance. @throws {ItemSchemaError} FST_ERR_DUPLEX_ITEM_SCHEMA */
  compile (app: FastifyInstance, route: RouteOptions): void {
    for (const format of this.receive) {
      const receiving = compileReceiving(format, app, route)
      addTypes(this.receiving, format, () => receiving)
    }
    for (const format of this.send) {
      const sending = compileSending(format, app, route)
      addTypes(this.sending, format, (mediaType) => ({ ...sending, mediaType }))
    }
  }

  /**
   * Chooses the format of a request body, by its content-type.
   *
   * @param hasBody whether there is one
   * @returns null if the route declares none
   * @throws {MediaTypeError} FST_ERR_DUPLEX_MEDIA_TYPE (415)
   */
  receivingOf (request: FastifyRequest, reply: FastifyReply, hasBody: boolean): Receiving | null {
    const { receiving } = this
    if (receiving.size === 0) return null
    const { 'content-type': contentType = '' } = request.headers
    const chosen = receiving.get(mediaTypeOf(contentType)!)
    if (chosen !== undefined) return chosen
    const [[, first]] = receiving
    if (!hasBody) return first
    const types = [...receiving.keys()].join(', ')
    reply.header('accept-post', types)
    throw new MediaTypeError(contentType === '' ? '(none)' : `"${contentType}"`, types)
  }

  /**
   * Chooses the format of a response body, by the Accept field of the request.
   *
   * @returns null if the route declares none
   * @throws {NotAcceptableError} FST_ERR_DUPLEX_NOT_ACCEPTABLE (406)
   */
  sendingOf ({ headers: { accept } }: FastifyRequest, reply: FastifyReply): Sending | null {
    const { sending } = this
    if (sending.size === 0) return null
    if (sending.size > 1) addVary(reply)
    const types = [...sending.keys()]
    // An empty field is as none (RFC 9110 section 12.5.1). Items are UTF-8.
    const type = accept === undefined || /^[\s,]*$/.test(accept) ? types[0] : new Negotiator({ headers: { accept: accept.replace(UTF8_PARAMETER, '') } }).mediaType(types)
    if (type === undefined) throw new NotAcceptableError(types.join(', '))
    return sending.get(type)!
  }
}

function formatsOf<Format extends SendFormat> (name: string, formats: Format | readonly Format[] | undefined): readonly Format[] {
  const list = formats === undefined ? [] : [formats].flat() as Format[]
  for (const format of list as Partial<SendFormat>[]) {
    if (typeof format?.codec !== 'object' || !('schema' in format)) throw new OptionError(name, 'expected a format of fastify-duplex/items, such as jsonl(schema), or an array of formats')
  }
  if (formats !== undefined && list.length === 0) throw new OptionError(name, 'expected at least one format')
  return list
}

/** The first format of a media type wins. */
function addTypes<Compiled> (compiled: Map<string, Compiled>, { codec }: SendFormat, compiledFor: (mediaType: string) => Compiled): void {
  for (const type of codec.mediaTypes) {
    if (!compiled.has(type)) compiled.set(type, compiledFor(type))
  }
}

function addVary (reply: FastifyReply): void {
  const vary = String(reply.getHeader('vary') ?? '')
  if (!/(^|,)\s*(accept|\*)\s*(,|$)/i.test(vary)) reply.header('vary', vary === '' ? 'accept' : `${vary}, accept`)
}
