// `fastify-duplex/transfer`.

export { bodyWriter, gather } from './body-writer.ts'
export { shouldClose } from './connection-field.ts'
export { trailerNames, writeTrailers } from './field-lines.ts'
export { bodyReader, framingFields, receivedFraming, requestFraming, responseFraming } from './framing.ts'
export { RequestHeadReader, ResponseHeadReader } from './head-reader.ts'
export { writeInterimHead, writeResponseHead } from './head-writer.ts'
export { writeRequestHead } from './request-head-writer.ts'
export { isTunnel, parseAuthority } from './tunnel.ts'
