use super::*;

const TEXT: &str = "Fellow-Citizens of the Senate and House of Representatives:\n\nI embrace with great satisfaction the opportunity \
    which now presents itself of congratulating you on the present favorable prospects of our public affairs. The recent \
    accession of the important state of North Carolina to the Constitution...\n  indented\tand 1790, naïve café 日本 \u{1F600}\n";

fn bpe() -> Tokenizer {
    Tokenizer::train_bpe([TEXT, TEXT], 320, &SPECIAL_TOKENS).unwrap()
}

#[test]
fn text_survives_a_byte_level_tokenizer() {
    let tokenizer = bpe();
    for text in [TEXT, "", " ", "never seen: \u{0} \u{10FFFF} ß\r\n"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text);
    }
    assert_eq!(tokenizer.vocabulary_size(), 320);
    assert_eq!(tokenizer.end_of_text(), Some(0));
    assert!(tokenizer.encode(TEXT).unwrap().len() < TEXT.len());
}

#[test]
fn training_again_gives_the_same_bytes_whatever_the_threads() {
    let texts: Vec<String> = (0..200).map(|i| format!("{TEXT} {i} {}", TEXT.split_at(i).0.to_lowercase())).collect();
    let train =
        || Tokenizer::train_bpe(texts.iter().map(String::as_str), 600, &SPECIAL_TOKENS).unwrap().json().to_vec();
    let first = train();
    assert_eq!(first, train());
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(train), first, "{threads} threads");
    }
}

#[test]
fn a_loaded_tokenizer_is_the_trained_one() {
    for tokenizer in [bpe(), Tokenizer::train_characters([TEXT], &SPECIAL_TOKENS).unwrap()] {
        let loaded = Tokenizer::from_bytes(tokenizer.json()).unwrap();
        assert_eq!(loaded.json(), tokenizer.json());
        assert_eq!(loaded.encode(TEXT).unwrap(), tokenizer.encode(TEXT).unwrap());
    }
}

#[test]
fn special_tokens_in_a_document_are_plain_text() {
    let text = format!("a{END_OF_TEXT}b");
    let tokenizer = bpe();
    let plain = tokenizer.encode(&text).unwrap();
    assert!(plain.iter().all(|&id| !tokenizer.is_special(id)));
    assert_eq!(tokenizer.decode(&plain).unwrap(), text);
    let template = tokenizer.encode_template(&text).unwrap();
    assert_eq!(template.len(), 3);
    assert_eq!(template[1], tokenizer.end_of_text().unwrap());
    assert_eq!(tokenizer.decode(&template).unwrap(), "ab");
}

#[test]
fn pieces_encode_as_the_whole_would() {
    let tokenizer = bpe();
    let text = format!("{TEXT}\n\n  x\n\u{2003}y\n").repeat(PIECE_BYTES * 3 / TEXT.len());
    assert!(pieces(&text).count() > 2);
    assert_eq!(pieces(&text).collect::<String>(), text);
    assert_eq!(tokenizer.encode(&text).unwrap(), encode(&tokenizer.inner.plain, &text).unwrap());
}

#[test]
fn characters_get_ids_in_their_order() {
    let tokenizer = Tokenizer::train_characters(["hello\n", "wörld"], &[]).unwrap();
    assert_eq!(tokenizer.vocabulary_size(), 9);
    assert_eq!(tokenizer.encode("\nde\u{f6}").unwrap(), [0, 1, 2, 8]);
    assert_eq!(tokenizer.encode_template("\nde").unwrap(), [0, 1, 2]);
    assert_eq!(tokenizer.decode(&[8, 0]).unwrap(), "\u{f6}\n");
    assert_eq!(tokenizer.end_of_text(), None);
    let error = tokenizer.encode("held?").unwrap_err();
    assert!(matches!(error, Error::UnknownCharacter { character: '?', at: 4 }), "{error}");
}

#[test]
fn characters_can_have_special_tokens() {
    let tokenizer = Tokenizer::train_characters(["ab<|"], &[END_OF_TEXT]).unwrap();
    assert_eq!(tokenizer.end_of_text(), Some(4));
    let ids = tokenizer.encode_template(&format!("a{END_OF_TEXT}b")).unwrap();
    assert_eq!(ids, [1, 4, 2]);
    assert!(matches!(tokenizer.encode(END_OF_TEXT), Err(Error::UnknownCharacter { character: 'e', .. })));
}

#[test]
fn what_is_no_tokenizer_is_refused() {
    for json in ["", "{}", "[1]", r#"{"model":{"type":"BPE","vocab":{},"merges":[]}}"#] {
        let error = Tokenizer::from_bytes(json.as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("tokenizer.json cannot be used"), "{error}");
    }
    assert!(Tokenizer::from_bytes(&vec![b' '; MAX_FILE_BYTES + 1]).unwrap_err().to_string().contains("allowed"));
    assert!(Tokenizer::train_bpe(["x"], 100, &SPECIAL_TOKENS).unwrap_err().to_string().contains("260"));
    assert!(Tokenizer::train_characters([""], &[]).is_err());
}

#[test]
fn an_id_beyond_the_vocabulary_is_named() {
    assert!(bpe().decode(&[5, 320]).unwrap_err().to_string().contains("id 320"));
}
