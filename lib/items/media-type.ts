// The content-type of a body of items.

const CHARSET = /;\s*charset\s*=\s*"?([^\s;"]*)/i

/** What can be read as UTF-8, also by the name that many clients use. */
const UTF8 = ['utf-8', 'utf8', 'us-ascii']

/** @returns type and subtype in lower case, without parameters; null if the text is in another charset than UTF-8 */
export function mediaTypeOf (contentType: string): string | null {
  const charset = CHARSET.exec(contentType)?.[1].toLowerCase() ?? 'utf-8'
  return UTF8.includes(charset) ? contentType.split(';')[0].trim().toLowerCase() : null
}
